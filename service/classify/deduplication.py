"""Equal images are computed once: for callers that come together and, if memory is given, for later ones.

1. callers with an equal key at the same time share one computation, which the first of them runs;
2. if that caller leaves, another one computes: a caller that leaves never costs others their answer;
3. results worth keeping are kept within `max_bytes`; the least recently used is dropped first;
4. two contents are equal only if all their bytes are.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
# As in RFC 9211: from memory, from another caller's computation, or from one's own.
Source = Literal["hit", "collapsed", "miss"]
SAMPLED_BYTES = 64


class Content:
    """Bytes as a key that is cheap to hash: by a sample of them. They are compared only with those of an equal sample.

    A digest of an image takes 0.1 ms of the event loop, and twice that until the loop has the interpreter again.
    """

    __slots__ = ("_bytes", "_hash")

    def __init__(self, content: bytes) -> None:
        self._bytes = content
        self._hash = hash((len(content), content[:: 1 + len(content) // SAMPLED_BYTES]))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Content) and self._bytes == other._bytes


class Deduplicator(Generic[T]):
    """Keys are equal when the work is. `size_of`: bytes that keeping a result takes, 0 for one that is not kept."""

    def __init__(self, max_bytes: int, size_of: Callable[[T], int]) -> None:
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._running: dict[Hashable, asyncio.Future[T | None]] = {}  # None: its caller has left
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._kept_bytes = 0

    async def get(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> tuple[T, Source]:
        """What `compute` returns, in this call or in one for an equal key; raises what `compute` raises."""
        while key not in self._kept:
            if (running := self._running.get(key)) is None:
                return await self._compute(key, compute), "miss"
            # Cancelling this caller must not cancel what others wait for.
            result = await asyncio.shield(running)
            if result is not None:
                return result, "collapsed"
        self._kept.move_to_end(key)
        return self._kept[key], "hit"

    async def _compute(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> T:
        self._running[key] = running = asyncio.get_running_loop().create_future()
        result: T | None = None
        try:
            result = await compute()
        finally:
            del self._running[key]
            running.set_result(result)
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
