"""Clients that ignore Retry-After: how long the next refusal of each is held back.

1. the first refusal is sent at once, and so is every one that a client receives after it has waited as it was told to;
2. one that asks too early and cannot be served gets its refusal later each time (`hold_s`); if it can be served, it is;
3. all refusals held back together are sent at a bounded rate, so that any number of such clients costs little;
4. waiting as told shrinks the delay again.

A client in a closed loop sends nothing while it waits for an answer. Measured with 64 of them and a deadline of ten
times the work of an image: refused at once they took all of the CPU, and nobody was answered.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field

FIRST_HOLD_S = 0.25
GROWTH = 4
MOST_HOLD_S = 1.0
# Refusals a second of those held back. Each takes about 0.3 ms of CPU time.
RATE = 200
# However many there are, none is held back for longer.
MOST_QUEUE_S = 5.0
# Clocks differ, and a client may round.
TOLERANCE_S = 0.1


@dataclass
class Conduct:
    """Of one connection. `early`: how often its client has asked again too early, halved whenever it waits."""

    early: int = 0
    _retry_at: float | None = None
    _held: asyncio.Future[None] | None = field(default=None, repr=False)

    def ask(self, arrived: float) -> None:
        """A request has arrived, at a time of `time.monotonic`."""
        if self._retry_at is None:
            return
        self.early = self.early + 1 if arrived < self._retry_at - TOLERANCE_S else self.early // 2
        self._retry_at = None

    def refuse(self, retry_after_s: float | None) -> None:
        """It is about to be told to retry after so many seconds, of which the header has whole ones."""
        self._retry_at = time.monotonic() + max(1, math.ceil(retry_after_s or 0.0))

    @property
    def hold_s(self) -> float:
        return min(MOST_HOLD_S, FIRST_HOLD_S * GROWTH ** min(self.early - 1, 10)) if self.early else 0.0

    async def hold(self, until: float) -> None:
        """Until then, or `release`."""
        self._held = asyncio.get_running_loop().create_future()
        timer = asyncio.get_running_loop().call_later(max(0.0, until - time.monotonic()), self.release)
        try:
            await self._held
        finally:
            timer.cancel()

    def release(self) -> None:
        """The client has left, or the server ends."""
        if self._held is not None and not self._held.done():
            self._held.set_result(None)


class Holds:
    """The refusals held back by this process."""

    def __init__(self) -> None:
        self._last_at = 0.0

    async def hold(self, conduct: Conduct, retry_after_s: float | None) -> None:
        """Before a refusal is sent."""
        if hold_s := conduct.hold_s:
            now = time.monotonic()
            self._last_at = min(max(now + hold_s, self._last_at + 1 / RATE), now + MOST_QUEUE_S)
            await conduct.hold(self._last_at)
        conduct.refuse(retry_after_s)
