"""Work that is too long for the event loop: one piece at a time, in a thread of lower priority.

One at a time, because such work holds the interpreter anyway, and its copies would add up in memory. It must consist of
short steps: a single call of a C function holds up the event loop just as if it were made there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from service.machine.priority import lower_priority

T = TypeVar("T")
# Takes the event loop about as long as handing it over to the thread.
SMALL_BYTES = 1 << 16
# Joining pieces takes so much less time than other work with as many bytes.
JOINING = 64

_THREAD = ThreadPoolExecutor(1, "aside", initializer=lower_priority)


async def aside(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_THREAD, work)


async def aside_if_large(size_bytes: int, work: Callable[[], T]) -> T:
    """At once if `size_bytes`, what it has to do with, are few."""
    return work() if size_bytes <= SMALL_BYTES else await aside(work)


async def join(pieces: list[bytes]) -> bytes:
    """Together. Empties `pieces`."""
    return await aside_if_large(sum(map(len, pieces)) // JOINING, partial(join_here, pieces))


def join_here(pieces: list[bytes]) -> bytes:
    """The same in this thread. Neither holds the interpreter for long: `join` works without it from a megabyte on, and
    the pieces are freed one by one."""
    joined = b"".join(pieces)
    while pieces:
        pieces.pop()
    return joined
