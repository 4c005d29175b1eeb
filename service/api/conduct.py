"""Clients that ignore Retry-After: how long the next refusal of each is held back.

1. the first refusal is sent immediately, and so is every refusal of a client that has waited as told;
2. a client that asks too early and cannot be served gets each refusal later than the last (`hold_s`), or when there is
   room again; if it can be served, it is;
3. held refusals are sent at a bounded rate in total, so that any number of such clients costs little;
4. waiting as told shrinks the delay again;
5. new connections do not help: once an address has spent its allowance of first refusals (`Address`), a connection from
   there begins as if it had asked too early once;
6. a proxy is not blamed for its clients: on its connections (`start_anew`) only the address of each client counts.

A client in a closed loop sends nothing while it waits for an answer. Measured with 64 of them and a deadline of ten
times the work of an image: refused immediately, they took all of the CPU, and nobody was answered.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

FIRST_HOLD_S = 0.25
GROWTH = 4
MOST_HOLD_S = 2.0
# Pause between two held refusals. Each takes about 0.3 ms of CPU time.
PERIOD_S = 0.005
# Clocks differ, and a client may round.
TOLERANCE_S = 0.1
# First refusals that the connections of one address get immediately, and how many more per second.
ALLOWANCE = 100
REFILL_PER_S = 20
MOST_ADDRESSES = 10_000


@dataclass
class Address:
    """`spent`: of its allowance, at `at`."""

    spent: float = 0.0
    at: float = 0.0

    def spend(self) -> None:
        self.spent, self.at = self._spent_now() + 1, time.monotonic()

    @property
    def has_spent_all(self) -> bool:
        return self._spent_now() >= ALLOWANCE

    def _spent_now(self) -> float:
        return max(0.0, self.spent - REFILL_PER_S * (time.monotonic() - self.at))


class Addresses:
    """The addresses of clients. The oldest are forgotten first."""

    def __init__(self) -> None:
        self._known: dict[str | bytes, Address] = {}

    def get(self, address: str) -> Address:
        name = _network(address)
        if name not in self._known and len(self._known) >= MOST_ADDRESSES:
            del self._known[next(iter(self._known))]
        return self._known.setdefault(name, Address())


def _network(address: str) -> str | bytes:
    """An IPv6 host has 64 bits of addresses to choose from."""
    address = address.removeprefix("::ffff:").partition("%")[0]
    return socket.inet_pton(socket.AF_INET6, address)[:8] if ":" in address else address


@dataclass(eq=False)
class Conduct:
    """The state of one connection. `early`: how often its client has asked again too early, halved whenever it waits.
    `waited`: did it wait before its current request?"""

    address: Address = field(default_factory=Address)
    early: int = 0
    waited: bool = False
    has_left: bool = False
    _is_new: bool = True
    _retry_at: float | None = None
    _held: asyncio.Future[None] | None = field(default=None, repr=False)
    _unjudged: Callable[[bool], None] | None = field(default=None, repr=False)

    def ask(self, arrived: float) -> None:
        """A request has arrived, at a time of `time.monotonic`."""
        self.waited, is_new, self._is_new = False, self._is_new, False
        if self._retry_at is None:
            self.early += is_new and self.address.has_spent_all
            return
        self.waited = arrived >= self._retry_at - TOLERANCE_S
        self.early = self.early // 2 if self.waited else self.early + 1
        self._judge(self.waited)
        self._retry_at = None

    def start_anew(self, address: Address) -> None:
        """A proxy's connection carries requests of many clients: what the others did does not affect this one."""
        self._judge(True)
        self.address, self.early, self._is_new, self._retry_at = address, 0, True, None

    def refuse(self, retry_after_s: float | None) -> None:
        """It is about to be told to retry after this many seconds; the header has whole ones."""
        if not self.early:
            self.address.spend()
        self._retry_at = time.monotonic() + max(1, math.ceil(retry_after_s or 0.0))

    def judge(self, tell: Callable[[bool], None]) -> None:
        """Its refusal: `tell(False)` if its client asks again too early, `tell(True)` if it waits or leaves."""
        self._judge(True)
        self._unjudged = tell

    def _judge(self, waited: bool) -> None:
        tell, self._unjudged = self._unjudged, None
        if tell is not None:
            tell(waited)

    @property
    def hold_s(self) -> float:
        return min(MOST_HOLD_S, FIRST_HOLD_S * GROWTH ** min(self.early - 1, 10)) if self.early else 0.0

    def hold(self) -> asyncio.Future[None]:
        """Done with `release`."""
        self._held = asyncio.get_running_loop().create_future()
        return self._held

    @property
    def is_held(self) -> bool:
        return self._held is not None and not self._held.done()

    def release(self) -> None:
        """It is time, or the server is shutting down."""
        if self._held is not None and not self._held.done():
            self._held.set_result(None)

    def leave(self) -> None:
        """The connection has ended."""
        self.has_left = True
        self._judge(True)
        self.release()


@dataclass(order=True)
class _Hold:
    until: float
    conduct: Conduct = field(compare=False)
    has_room: Callable[[], bool] = field(compare=False)


class Holds:
    """The refusals held back by this process."""

    def __init__(self) -> None:
        self._heap: list[_Hold] = []
        self._is_ticking = False

    async def hold(self, conduct: Conduct, retry_after_s: float | None, has_room: Callable[[], bool]) -> None:
        """Before a refusal is sent. `has_room`: could a request like it be served now?"""
        if hold_s := conduct.hold_s:
            held = conduct.hold()
            heapq.heappush(self._heap, _Hold(time.monotonic() + hold_s, conduct, has_room))
            if not self._is_ticking:
                self._tick()
            await held
        conduct.refuse(retry_after_s)

    def _tick(self) -> None:
        """Sends one refusal, if it is time or if there is room for its client's next request."""
        while self._heap and not self._heap[0].conduct.is_held:
            heapq.heappop(self._heap)  # its client has left
        self._is_ticking = bool(self._heap)
        if self._heap:
            asyncio.get_running_loop().call_later(PERIOD_S, self._tick)
            first = self._heap[0]
            if time.monotonic() >= first.until or first.has_room():
                heapq.heappop(self._heap)
                first.conduct.release()
