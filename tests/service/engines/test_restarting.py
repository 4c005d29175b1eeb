from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engines.backoff import Backoff
from service.engines.base import Engine, RestartableEngine
from service.engines.restarting import InThisProcess, RestartingEngine, restart_in_this_process
from service.engines.runtimes.fake import FakeEngine
from service.errors import GoldenCheckFailed, NotReady

PIXELS: NDArray[np.float32] = np.ones((1, 3, 4, 4), np.float32)
SOON = Backoff(first_delay_s=0.01, longest_delay_s=0.02)


def until(is_so: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.002)


def keep_open(
    engine: Engine, reopen: Callable[[], Engine], backoff: Backoff, check: Callable[[Engine], object] = id
) -> RestartingEngine:
    return restart_in_this_process(engine, reopen, check, backoff)


def test_it_is_opened_again_in_the_background_and_the_failed_one_is_closed() -> None:
    first, second, may_open = FakeEngine(5, 4), FakeEngine(5, 4), threading.Event()

    def reopen() -> Engine:
        may_open.wait(30)
        return second

    engine = keep_open(first, reopen, SOON)
    assert isinstance(engine, RestartableEngine)
    assert engine.infer(PIXELS).shape == (1, 5)
    assert engine.unavailable_s == 0.0
    engine.restart()
    engine.restart()  # once is enough
    with pytest.raises(NotReady, match="being restarted") as told:
        engine.infer(PIXELS)
    assert told.value.retry_after_s >= 0
    until(lambda: engine.unavailable_s > 0 and first.closed)
    may_open.set()
    until(lambda: not engine.unavailable_s)
    assert engine.infer(PIXELS).shape == (1, 5)
    engine.close()
    assert second.closed


def test_an_opening_that_fails_is_retried() -> None:
    attempts: list[Engine | Exception] = [RuntimeError("no device"), SystemError("still none"), FakeEngine(5, 4)]

    def reopen() -> Engine:
        found = attempts.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    engine = keep_open(FakeEngine(5, 4), reopen, SOON)
    counted: list[int] = []
    engine.on_restart = lambda: counted.append(len(attempts))
    engine.restart()
    until(lambda: not engine.unavailable_s)
    assert not attempts
    assert counted == [3, 2, 1]
    engine.close()
    assert len(counted) == 3


def test_one_that_is_being_opened_again_is_closed_once_it_is_open() -> None:
    opening, may_open, second = threading.Event(), threading.Event(), FakeEngine(5, 4)

    def reopen() -> Engine:
        opening.set()
        may_open.wait(30)
        return second

    engine = keep_open(FakeEngine(5, 4), reopen, SOON)
    engine.restart()
    opening.wait(30)
    closing = threading.Thread(target=engine.close)
    closing.start()
    may_open.set()
    closing.join(30)
    assert second.closed


def test_the_failed_one_is_not_closed_under_a_running_call() -> None:
    gate = threading.Event()
    first = FakeEngine(5, 4, gate=gate)
    engine = keep_open(first, lambda: FakeEngine(5, 4), SOON)
    batch = threading.Thread(target=engine.infer, args=(PIXELS,))
    batch.start()
    until(lambda: engine._calls == 1)
    engine.restart()
    assert not first.closed
    gate.set()
    until(lambda: first.closed)
    batch.join()
    engine.close()


def test_closing_ends_the_retries() -> None:
    def reopen() -> Engine:
        raise RuntimeError("never again")

    engine = keep_open(FakeEngine(5, 4), reopen, Backoff(first_delay_s=60.0))
    engine.restart()
    until(lambda: engine._expected_back > time.monotonic())
    engine.close()
    with pytest.raises(NotReady) as told:
        engine.infer(PIXELS)
    assert told.value.retry_after_s > 20


def test_the_error_of_the_first_opening_is_raised() -> None:
    def fail() -> Engine:
        raise SystemError("no device")

    with pytest.raises(SystemError, match="no device"):
        RestartingEngine.open(lambda: InThisProcess(fail), id, SOON, wait_s=0.0)


def test_a_reopened_engine_that_fails_the_golden_check_is_closed_and_never_used() -> None:
    reopened = [FakeEngine(5, 4) for _ in range(3)]
    wrong = reopened[:2]
    remaining = reopened[:]

    def check(engine: Engine) -> None:
        if engine in wrong:
            raise GoldenCheckFailed("not the network that was trained")

    engine = keep_open(FakeEngine(5, 4), lambda: remaining.pop(0), SOON, check)
    engine.restart()
    until(lambda: not engine.unavailable_s)
    assert [one.closed for one in reopened] == [True, True, False]
    engine.close()


def test_an_engine_that_cannot_be_closed_is_replaced_anyway(caplog: pytest.LogCaptureFixture) -> None:
    class Unclosable(FakeEngine):
        def close(self) -> None:
            raise RuntimeError("as told")

    engine = keep_open(Unclosable(5, 4), lambda: FakeEngine(5, 4), SOON)
    engine.restart()
    until(lambda: not engine.unavailable_s)
    assert "could not be closed" in caplog.text
    engine.close()
