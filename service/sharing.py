"""Equal work is done once: for callers that come together, and, with memory for it, for those that come later.

1. callers with an equal key that are here at the same time share one computation;
2. a caller that leaves takes the computation with it only if nobody else waits for it;
3. what was worth keeping is kept within `max_bytes`, the least recently used goes first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")
# As in RFC 9211: from memory, with another caller's computation, or by one of its own.
Source = Literal["hit", "collapsed", "miss"]


@dataclass
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    callers: int = 0


class Sharing(Generic[T]):
    """Keys are equal when the work is. `size_of`: the bytes that a result costs to keep, 0 for one not to be kept."""

    def __init__(self, max_bytes: int, size_of: Callable[[T], int]) -> None:
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._flights: dict[bytes, _Flight[T]] = {}
        self._kept: OrderedDict[bytes, T] = OrderedDict()
        self._kept_bytes = 0

    async def get(self, key: bytes, compute: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, Source]:
        """What `compute` returns, now, before or for somebody else; raises what it raises."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key], "hit"
        flight = self._flights.get(key)
        source: Source = "collapsed" if flight else "miss"
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(self._compute(key, compute)))
        flight.callers += 1
        try:
            return await asyncio.shield(flight.task), source
        finally:
            flight.callers -= 1
            if not flight.callers and not flight.task.done():
                # Whoever comes from now on must not board it.
                del self._flights[key]
                flight.task.cancel()

    async def _compute(self, key: bytes, compute: Callable[[], Coroutine[Any, Any, T]]) -> T:
        mine = asyncio.current_task()
        try:
            result = await compute()
        finally:
            if key in self._flights and self._flights[key].task is mine:
                del self._flights[key]
        self._keep(key, result)
        return result

    def _keep(self, key: bytes, result: T) -> None:
        size = self._size_of(result)
        if not 0 < size <= self._max_bytes or key in self._kept:
            return
        self._kept[key] = result
        self._kept_bytes += size
        while self._kept_bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= self._size_of(dropped)
