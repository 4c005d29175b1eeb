"""Equal work is done once: for callers that come together, and, with memory for it, for those that come later.

1. callers with an equal key that are here at the same time share one computation, that of the first one;
2. if that one leaves, one of the others computes anew: nobody's leaving costs another one its answer;
3. what was worth keeping is kept within `max_bytes`, the least recently used goes first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
# As in RFC 9211: from memory, with another caller's computation, or by one's own.
Source = Literal["hit", "collapsed", "miss"]


class Sharing(Generic[T]):
    """Keys are equal when the work is. `size_of`: the bytes that a result costs to keep, 0 for one not to be kept."""

    def __init__(self, max_bytes: int, size_of: Callable[[T], int]) -> None:
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._under_way: dict[bytes, asyncio.Future[T | None]] = {}  # None: whoever computed it has left
        self._kept: OrderedDict[bytes, T] = OrderedDict()
        self._kept_bytes = 0

    async def get(self, key: bytes, compute: Callable[[], Awaitable[T]]) -> tuple[T, Source]:
        """What `compute` returns, now, before or for somebody else; raises what it raises."""
        while key not in self._kept:
            if (under_way := self._under_way.get(key)) is None:
                return await self._compute(key, compute), "miss"
            # A caller that is cancelled must not cancel what others wait for.
            result = await asyncio.shield(under_way)
            if result is not None:
                return result, "collapsed"
        self._kept.move_to_end(key)
        return self._kept[key], "hit"

    async def _compute(self, key: bytes, compute: Callable[[], Awaitable[T]]) -> T:
        self._under_way[key] = under_way = asyncio.get_running_loop().create_future()
        result: T | None = None
        try:
            result = await compute()
        finally:
            del self._under_way[key]
            under_way.set_result(result)
        self._keep(key, result)
        return result

    def _keep(self, key: bytes, result: T) -> None:
        size = self._size_of(result)
        if not 0 < size <= self._max_bytes:
            return
        self._kept[key] = result
        self._kept_bytes += size
        while self._kept_bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= self._size_of(dropped)
