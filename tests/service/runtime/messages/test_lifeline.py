from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.runtime.messages import lifeline as module
from service.runtime.messages.lifeline import Lifeline, Monitor, lifeline

Run = Callable[[Coroutine[Any, Any, Any]], Any]
LOOKS = 5


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look for every two beats: what is counted is looks without any."""
    monkeypatch.setattr(module, "BEAT_EVERY_S", 0.01)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(module, "STUCK_AFTER_LOOKS", LOOKS)


def always() -> bool:
    return True


class Worker:
    """The worker's end, run in this loop. `fault`: why it is not alive."""

    def __init__(self, connection: socket.socket) -> None:
        self.fault = ""
        self.signals: list[str] = []
        self.received = asyncio.Event()
        self.connection = connection
        self.task = asyncio.create_task(Lifeline(connection).run(self._on_signal, lambda: self.fault))

    def _on_signal(self, number: signal.Signals) -> None:
        self.signals.append(number.name)
        self.received.set()


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Monitor, Worker]]:
    ours, theirs = lifeline()
    with ours, theirs:
        worker = Worker(theirs)
        yield Monitor(ours), worker
        worker.task.cancel()
        await asyncio.gather(worker.task, return_exceptions=True)


def test_a_worker_that_beats_is_not_stuck_and_one_that_says_why_is(run: Run) -> None:
    async def scenario() -> None:
        async with pair() as (monitor, worker):
            waiting = asyncio.create_task(monitor.why_stuck(always))
            await asyncio.sleep(0.02 * LOOKS * 4)
            assert not waiting.done()
            worker.fault = "the engine hangs " + "x" * 5000
            assert (await waiting).startswith("the engine hangs x")

    run(scenario())


def test_a_silent_worker_is_stuck_once_it_is_watched(run: Run) -> None:
    async def scenario() -> None:
        ours, theirs = lifeline()
        with ours, theirs:
            opened = asyncio.Event()
            waiting = asyncio.create_task(Monitor(ours).why_stuck(opened.is_set))
            await asyncio.sleep(0.02 * LOOKS * 4)
            assert not waiting.done()
            opened.set()
            assert await waiting == "it has not answered for 0.1 s"

    run(scenario())


def test_a_supervisor_that_was_stopped_for_long_kills_nobody(run: Run) -> None:
    """As if a whole container had been stopped: then both sides go on."""

    async def scenario() -> None:
        async with pair() as (monitor, _):
            waiting = asyncio.create_task(monitor.why_stuck(always))
            for _ in range(LOOKS + 1):
                time.sleep(0.02 * LOOKS * 2)  # noqa: ASYNC251  # it stops both sides
                await asyncio.sleep(0.03)
            assert not waiting.done()
            waiting.cancel()

    run(scenario())


def test_signals_arrive_in_order_and_are_never_waited_for(run: Run) -> None:
    async def scenario() -> None:
        ours, theirs = lifeline()
        with ours, theirs:
            monitor = Monitor(ours)
            for _ in range(10_000):
                monitor.pass_on("SIGHUP")  # more than fit
            worker = Worker(theirs)
            await worker.received.wait()
            for name in ("SIGTERM", "SIGINT"):
                worker.received.clear()
                monitor.pass_on(name)
                await worker.received.wait()
            assert worker.signals[-2:] == ["SIGTERM", "SIGINT"]
            worker.task.cancel()
            await asyncio.gather(worker.task, return_exceptions=True)

    run(scenario())


def test_each_side_sees_the_end_of_the_other(run: Run) -> None:
    async def scenario() -> None:
        async with pair() as (monitor, worker):
            monitor.close()
            await asyncio.wait_for(worker.task, 10)
        async with pair() as (monitor, worker):
            worker.task.cancel()
            await asyncio.gather(worker.task, return_exceptions=True)
            worker.connection.close()
            assert await monitor.why_stuck(always) == ""

    run(scenario())
