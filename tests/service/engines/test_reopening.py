from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engines.backoff import Patience
from service.engines.base import Engine, RestartableEngine
from service.engines.reopening import ReopeningEngine
from service.engines.runtimes.fake import FakeEngine
from service.errors import NotReady

PIXELS: NDArray[np.float32] = np.ones((1, 3, 4, 4), np.float32)
SOON = Patience(first_delay_s=0.01, longest_delay_s=0.02)


def until(is_so: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.002)


def test_it_is_opened_again_in_the_background_and_the_failed_one_is_closed() -> None:
    first, second, may_open = FakeEngine(5, 4), FakeEngine(5, 4), threading.Event()

    def reopen() -> Engine:
        may_open.wait(30)
        return second

    engine = ReopeningEngine(first, reopen, SOON)
    assert isinstance(engine, RestartableEngine)
    assert engine.infer(PIXELS).shape == (1, 5)
    assert engine.away_s == 0.0
    engine.restart()
    engine.restart()  # once is enough
    with pytest.raises(NotReady, match="being opened again") as told:
        engine.infer(PIXELS)
    assert told.value.retry_after_s >= 0
    until(lambda: engine.away_s > 0 and first.closed)
    may_open.set()
    until(lambda: not engine.away_s)
    assert engine.infer(PIXELS).shape == (1, 5)
    engine.close()
    assert second.closed


def test_an_opening_that_fails_is_tried_again() -> None:
    attempts: list[Engine | Exception] = [RuntimeError("no device"), SystemError("still none"), FakeEngine(5, 4)]

    def reopen() -> Engine:
        found = attempts.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    engine = ReopeningEngine(FakeEngine(5, 4), reopen, SOON)
    engine.restart()
    until(lambda: not engine.away_s)
    assert not attempts
    engine.close()


def test_the_failed_one_is_not_closed_under_a_batch() -> None:
    gate = threading.Event()
    first = FakeEngine(5, 4, gate=gate)
    engine = ReopeningEngine(first, lambda: FakeEngine(5, 4), SOON)
    batch = threading.Thread(target=engine.infer, args=(PIXELS,))
    batch.start()
    until(lambda: engine._calls == 1)
    engine.restart()
    assert not first.closed
    gate.set()
    until(lambda: first.closed)
    batch.join()
    engine.close()


def test_closing_ends_the_attempts() -> None:
    def reopen() -> Engine:
        raise RuntimeError("never again")

    engine = ReopeningEngine(FakeEngine(5, 4), reopen, Patience(first_delay_s=60.0))
    engine.restart()
    until(lambda: engine._expected_back > 0)
    engine.close()
    with pytest.raises(NotReady) as told:
        engine.infer(PIXELS)
    assert told.value.retry_after_s > 20
