"""One new request begins in each turn of the event loop.

An image comes back to the event loop four times: decoded, batched, computed, answered. If all requests that arrive
together began in one turn, each of those steps would wait for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Use it within one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def take(self) -> None:
        """Returns in this turn, or in the first one that no other has taken."""
        loop = asyncio.get_running_loop()
        if self._taken:
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
        else:
            self._taken = True
            loop.call_soon(self._pass_on)

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # cancelled, otherwise
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._pass_on)
                return
        self._taken = False
