from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.machine.priority import (
    NICENESS,
    SWITCH_INTERVAL_S,
    freeze_live_objects,
    lower_priority,
    shorten_switch_interval,
)


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_only_a_thread_that_asks_for_it_and_those_that_it_starts_have_a_lower_priority() -> None:
    before = niceness()

    def mine_and_a_childs() -> tuple[int, int]:
        with ThreadPoolExecutor(1) as child:
            return niceness(), child.submit(niceness).result()

    with ThreadPoolExecutor(1, initializer=lower_priority) as pool:
        assert pool.submit(mine_and_a_childs).result() == (before + NICENESS, before + NICENESS)
    assert niceness() == before


@pytest.fixture
def as_before() -> Iterator[None]:
    interval = sys.getswitchinterval()
    yield
    sys.setswitchinterval(interval)
    gc.unfreeze()


@pytest.mark.usefixtures("as_before")
def test_the_switch_interval_is_shortened() -> None:
    shorten_switch_interval()
    assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)


class Model:
    """It refers to itself, so that only a collection can free it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("as_before")
def test_live_objects_are_left_out_of_collections_until_another_model_replaces_them() -> None:
    model = Model()
    left = weakref.ref(model)
    freeze_live_objects()
    del model
    gc.collect()
    assert left() is not None
    freeze_live_objects()
    assert left() is None
    assert gc.get_freeze_count() > 0
