from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from service.machine.own_thread import in_own_thread, is_at_work

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_what_the_work_returns_or_raises_comes_back(run: Run) -> None:
    async def scenario() -> None:
        assert await in_own_thread(lambda: threading.current_thread().name) == "own-thread"
        with pytest.raises(SystemExit, match="7"):
            await in_own_thread(lambda: exec("raise SystemExit(7)"))

    run(scenario())


def test_a_caller_that_leaves_waits_for_nothing_and_the_result_is_disposed_of(run: Run) -> None:
    go_on, disposed, results = threading.Event(), threading.Event(), []

    def work() -> str:
        go_on.wait(30)
        return "an engine"

    def dispose(result: str) -> None:
        results.append(result)
        disposed.set()

    async def scenario() -> None:
        waiting = asyncio.create_task(in_own_thread(work, dispose))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(scenario())  # its loop has ended
    assert is_at_work()
    go_on.set()
    assert disposed.wait(30)
    assert results == ["an engine"]


def test_a_result_that_comes_as_its_caller_leaves_is_disposed_of_too(run: Run) -> None:
    done, disposed = threading.Event(), threading.Event()

    async def scenario() -> None:
        waiting = asyncio.create_task(in_own_thread(done.set, lambda _: disposed.set()))
        await asyncio.sleep(0)
        done.wait(30)
        while is_at_work():
            """The loop is held up, so that it has not heard of the result."""
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(scenario())
    assert disposed.wait(30)
