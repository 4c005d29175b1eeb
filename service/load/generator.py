"""Puts load on an HTTP server and records the outcome of each request.

1. open loop: Poisson arrivals that slow answers do not delay, with latency measured from the intended send time;
2. closed loop: each client sends its next request as soon as its last one is answered;
3. every sample says how late the generator sent it, so that a slow generator is not mistaken for a slow server;
4. every request that was due has a sample, whatever its outcome; an interrupted run keeps the samples so far;
5. rude clients send their next request as soon as they are refused, polite ones wait for as long as Retry-After says;
   each client of a closed loop has a connection of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import resource
import select
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import uvloop

from service.load.wire import Address, Broken, Pool, PreparedRequest, Reply

# Runs with the same rate have the same arrivals, so that two of them differ only in the server.
SEED = 1
TICK_S = 0.5
# A client whose request failed waits this long, or a server that refuses quickly would be flooded with retries.
PAUSE_AFTER_FAILURE_S = 0.01

_TIMING = re.compile(rb"\r\nserver-timing: *([^\r]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """Either `rate` (arrivals a second, open loop) or `clients` (closed loop), for `seconds`.

    A request is abandoned `give_up_after_s` after it was due. `seconds` includes the warm-up. In a closed loop clients
    pause for a moment after a failure; `rude` ones do not, and `polite` of them respect Retry-After.
    """

    seconds: float
    give_up_after_s: float
    rate: float | None = None
    clients: int = 1
    rude: bool = False
    polite: int = 0


@dataclass(frozen=True)
class Sample:
    """One request. Times are seconds from the start of the load; it was sent `late_s` after `due_s`.

    `status` is 0 without a complete answer, and `code` says why; otherwise `code` is that of the problem document, if
    there is one. `timing` is the Server-Timing header. `polite`: from a client that respects Retry-After.
    """

    due_s: float
    late_s: float
    ended_s: float
    status: int
    code: str | None
    timing: str
    polite: bool = False

    @property
    def latency_s(self) -> float:
        return self.ended_s - self.due_s


@dataclass
class Run:
    """The samples so far. `elapsed_s` and `cpu_s`, the generator's own CPU time, are set at the end."""

    samples: list[Sample] = field(default_factory=list)
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    stopped: bool = False


class FineSelector(selectors.EpollSelector):
    """Waits with select, since epoll_wait rounds up to whole milliseconds; an epoll descriptor can be selected."""

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
    """Send `requests` in turn; blocks. Ctrl-C ends the load: `stopped` is set, and requests in flight have no sample.

    `tick(run, elapsed_s)` is called twice a second. Works in the main thread only, because of the signal handler.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (hard, hard)
    )  # an open loop against a slow server needs many connections
    # uvloop halves the CPU time of a request, but its timers are good to a millisecond only.
    loop = uvloop.new_event_loop() if plan.rate is None else asyncio.SelectorEventLoop(FineSelector())
    generator = _Generator(address, requests, plan, loop)
    try:
        return loop.run_until_complete(generator.run(tick))
    finally:
        loop.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ask_once(address: Address, request: PreparedRequest, give_up_after_s: float) -> Reply:
    """One request, before a load. Raises Broken."""

    async def ask() -> Reply:
        pool = Pool(address)
        try:
            return await pool.ask(request, asyncio.get_running_loop().time() + give_up_after_s)
        finally:
            pool.close()

    return asyncio.run(ask())


class _Generator:
    def __init__(
        self, address: Address, requests: Sequence[PreparedRequest], plan: Plan, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._address = address
        self._pool = Pool(address)
        self._requests = itertools.cycle(requests)
        self._plan = plan
        self._loop = loop
        self._found = Run()
        self._tasks: set[asyncio.Task[Reply | None]] = set()

    async def run(self, tick: Callable[[Run, float], None]) -> Run:
        self._started = self._now()
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
            await asyncio.sleep(0)  # lets the aborted connections close
        self._found.elapsed_s = self._now() - self._started
        self._found.cpu_s = time.process_time() - cpu_s
        return self._found

    def _now(self) -> float:
        return time.monotonic()  # as the clock of the event loop, which uvloop rounds

    async def _tick(self, tick: Callable[[Run, float], None]) -> None:
        while True:
            await asyncio.sleep(TICK_S + 0.001)  # uvloop may wake up a millisecond early
            tick(self._found, self._now() - self._started)

    async def _closed_loop(self) -> None:
        await asyncio.gather(*(self._client(number < self._plan.polite) for number in range(self._plan.clients)))

    async def _client(self, polite: bool) -> None:
        pool = Pool(self._address)
        try:
            while (now := self._now()) < self._ends:
                reply = await self._send(now, pool, polite)
                if reply is None or reply.status != 200:
                    await self._pause(reply, polite)
        finally:
            pool.close()

    async def _pause(self, refusal: Reply | None, polite: bool) -> None:
        seconds = PAUSE_AFTER_FAILURE_S
        if refusal is not None and polite:
            seconds = float(refusal.headers.get("retry-after", seconds))
        elif refusal is not None and self._plan.rude:
            return
        rest_s = max(0.0, self._ends - self._now()) + 0.001  # uvloop may wake up a millisecond early
        await asyncio.sleep(min(seconds, rest_s))

    async def _open_loop(self) -> None:
        assert self._plan.rate is not None
        draw, due = random.Random(SEED), self._started
        while (due := due + draw.expovariate(self._plan.rate)) < self._ends:
            await asyncio.sleep(max(0.0, due - self._now()))
            task = self._loop.create_task(self._send(due, self._pool))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.gather(*self._tasks)

    async def _send(self, due: float, pool: Pool, polite: bool = False) -> Reply | None:
        """-> the answer, if there is one."""
        reply: Reply | None = None
        late_s = self._now() - due
        try:
            reply = await pool.ask(next(self._requests), due + self._plan.give_up_after_s)
            outcome = reply.status, code_of(reply), _timing_of(reply)
        except Broken as broken:
            outcome = 0, str(broken), ""
        ended_s = self._now() - self._started
        self._found.samples.append(Sample(due - self._started, late_s, ended_s, *outcome, polite))
        return reply


def _timing_of(reply: Reply) -> str:
    found = _TIMING.search(reply.head)
    return found[1].decode("latin-1") if found else ""


def code_of(reply: Reply) -> str | None:
    """The `code` of a problem document, the status of any other failure, None for an answer."""
    if reply.status == 200:
        return None
    return str(problem_of(reply).get("code") or f"http {reply.status}")


def problem_of(reply: Reply) -> dict[str, object]:
    """The fields of a problem document; empty for anything else."""
    try:
        problem = json.loads(reply.body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
