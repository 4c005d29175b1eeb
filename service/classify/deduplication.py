"""Equal work is done once: for callers that come together, and, with memory for it, for those that come later.

1. callers with an equal key that are here at the same time share one computation, that of the first one;
2. if that one leaves, one of the others computes anew: nobody's leaving costs another one its answer;
3. what was worth keeping is kept within `max_bytes`, the least recently used goes first;
4. contents are equal only if every byte is.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
# As in RFC 9211: from memory, with another caller's computation, or by one's own.
Source = Literal["hit", "collapsed", "miss"]
SAMPLED_BYTES = 64


class Content:
    """Bytes as a key that costs next to nothing: hashed by a sample, compared only with those of an equal sample.

    A digest of an image takes 0.1 ms of the event loop, and twice that until it has the interpreter again.
    """

    __slots__ = ("_bytes", "_hash")

    def __init__(self, content: bytes) -> None:
        self._bytes = content
        self._hash = hash((len(content), content[:: 1 + len(content) // SAMPLED_BYTES]))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Content) and self._bytes == other._bytes


class Sharing(Generic[T]):
    """Keys are equal when the work is. `size_of`: the bytes that a result costs to keep, 0 for one not to be kept."""

    def __init__(self, max_bytes: int, size_of: Callable[[T], int]) -> None:
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._under_way: dict[Hashable, asyncio.Future[T | None]] = {}  # None: whoever computed it has left
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._kept_bytes = 0

    async def get(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> tuple[T, Source]:
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

    async def _compute(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> T:
        self._under_way[key] = under_way = asyncio.get_running_loop().create_future()
        result: T | None = None
        try:
            result = await compute()
        finally:
            del self._under_way[key]
            under_way.set_result(result)
        self._keep(key, result)
        return result

    def _keep(self, key: Hashable, result: T) -> None:
        size = self._size_of(result)
        if not 0 < size <= self._max_bytes:
            return
        self._kept[key] = result
        self._kept_bytes += size
        while self._kept_bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= self._size_of(dropped)
