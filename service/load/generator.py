"""Load on an HTTP server, and what became of each request.

1. open loop: Poisson arrivals that no slow answer holds back, and latency from the moment a request was due;
2. closed loop: each client sends its next request when its last one is answered;
3. how late the generator itself sent is part of every sample: a slow generator is no slow server;
4. every request that was due has its sample, however it ended; a run that is stopped keeps those it has.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import resource
import select
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from service.load.wire import Address, Broken, Pool, PreparedRequest, Reply

# Arrivals are the same in each run of a rate, so that two runs differ by their servers only.
SEED = 1
TICK_S = 0.5
# A client that was refused does not come back within the same instant: the load would be that of its own haste.
PAUSE_AFTER_FAILURE_S = 0.01


@dataclass(frozen=True)
class Plan:
    """Either `rate` (arrivals a second, open loop) or `clients` (closed loop), for `seconds`.

    A request is given up `patience_s` after it was due. `seconds` includes the warm-up.
    """

    seconds: float
    patience_s: float
    rate: float | None = None
    clients: int = 1


@dataclass(frozen=True)
class Sample:
    """One request; times in seconds from the start of the load, `late_s` how long after `due_s` it was sent.

    `status` is 0 if there was no whole answer, and `code` then says why; else it is a problem document's code, or
    None. `timing` is the answer's Server-Timing header.
    """

    due_s: float
    late_s: float
    ended_s: float
    status: int
    code: str | None
    timing: str

    @property
    def latency_s(self) -> float:
        return self.ended_s - self.due_s


@dataclass
class Run:
    """What a load has found so far. `elapsed_s` and the generator's own `cpu_s` are those at its end."""

    samples: list[Sample] = field(default_factory=list)
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    stopped: bool = False


class FineSelector(selectors.EpollSelector):
    """epoll_wait rounds a wait up to whole milliseconds, select does not; and an epoll descriptor can be selected."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            select.select([self.fileno()], [], [], timeout)
        return super().select(0)


def run_load(
    address: Address,
    requests: Sequence[PreparedRequest],
    plan: Plan,
    tick: Callable[[Run, float], None] = lambda *_: None,
) -> Run:
    """Send `requests` in turn; blocks. Ctrl-C stops it: `stopped` is set, and what was in flight has no sample.

    `tick(run, elapsed_s)` is called twice a second. Only in the main thread, for the signal.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a slow server makes an open loop hold many connections
    loop = asyncio.SelectorEventLoop(FineSelector())
    generator = _Generator(address, requests, plan, loop)
    try:
        return loop.run_until_complete(generator.run(tick))
    finally:
        loop.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ask_once(address: Address, request: PreparedRequest, patience_s: float) -> Reply:
    """One request, before a load. Raises Broken."""

    async def ask() -> Reply:
        pool = Pool(address)
        try:
            return await pool.ask(request, asyncio.get_running_loop().time() + patience_s)
        finally:
            pool.close()

    return asyncio.run(ask())


class _Generator:
    def __init__(
        self, address: Address, requests: Sequence[PreparedRequest], plan: Plan, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._pool = Pool(address)
        self._requests = itertools.cycle(requests)
        self._plan = plan
        self._loop = loop
        self._found = Run()
        self._tasks: set[asyncio.Task[Sample]] = set()

    async def run(self, tick: Callable[[Run, float], None]) -> Run:
        self._started = self._loop.time()
        self._ends = self._started + self._plan.seconds
        cpu_s = time.process_time()
        ticking = self._loop.create_task(self._tick(tick))
        sending = self._loop.create_task(self._closed_loop() if self._plan.rate is None else self._open_loop())
        self._loop.add_signal_handler(signal.SIGINT, sending.cancel)
        try:
            await sending
        except asyncio.CancelledError:
            self._found.stopped = True
        finally:
            self._loop.remove_signal_handler(signal.SIGINT)
            for task in (unfinished := [ticking, *self._tasks]):
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
            self._pool.close()
            await asyncio.sleep(0)  # the aborted connections are told
        self._found.elapsed_s = self._loop.time() - self._started
        self._found.cpu_s = time.process_time() - cpu_s
        return self._found

    async def _tick(self, tick: Callable[[Run, float], None]) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            tick(self._found, self._loop.time() - self._started)

    async def _closed_loop(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._plan.clients)))

    async def _client(self) -> None:
        while (now := self._loop.time()) < self._ends:
            if (await self._send(now)).status != 200:
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)

    async def _open_loop(self) -> None:
        assert self._plan.rate is not None
        draw, due = random.Random(SEED), self._started
        while (due := due + draw.expovariate(self._plan.rate)) < self._ends:
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            task = self._loop.create_task(self._send(due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.gather(*self._tasks)

    async def _send(self, due: float) -> Sample:
        late_s = self._loop.time() - due
        try:
            reply = await self._pool.ask(next(self._requests), due + self._plan.patience_s)
            outcome = reply.status, code_of(reply), reply.headers.get("server-timing", "")
        except Broken as broken:
            outcome = 0, str(broken), ""
        sample = Sample(due - self._started, late_s, self._loop.time() - self._started, *outcome)
        self._found.samples.append(sample)
        return sample


def code_of(reply: Reply) -> str | None:
    """Of a problem document its `code`, of another failure its status, of an answer None."""
    if reply.status == 200:
        return None
    return str(problem_of(reply).get("code") or f"http {reply.status}")


def problem_of(reply: Reply) -> dict[str, object]:
    """The fields of a problem document; none for anything else."""
    try:
        problem = json.loads(reply.body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
