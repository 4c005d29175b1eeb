from __future__ import annotations

import pytest

from service.engines.backoff import Backoff, Restarts


def test_each_life_that_ends_soon_makes_the_next_delay_four_times_as_long() -> None:
    backoff = Backoff(first_delay_s=0.1, longest_delay_s=30.0)
    assert [backoff.delay_s(ends) for ends in (1, 2, 3, 4)] == pytest.approx([0.1, 0.4, 1.6, 6.4])
    assert backoff.delay_s(20) == backoff.delay_s(10**9) == 30.0


def test_a_long_life_resets_the_delay() -> None:
    restarts = Restarts(Backoff(first_delay_s=0.1, longest_delay_s=30.0, soon_s=60.0))
    assert [restarts.delay_after(life_s) for life_s in (1.0, 59.0, 61.0, 1.0)] == pytest.approx([0.1, 0.4, 0.1, 0.4])
