from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.classify.batching_world import gates


@pytest.fixture(autouse=True)
def _all_gates_open_at_the_end() -> Iterator[None]:
    """Otherwise a thread that waits for a gate would keep a failed test run from ending."""
    yield
    while gates:
        gates.pop().set()
