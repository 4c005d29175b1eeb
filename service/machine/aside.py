"""Work that is too long for the event loop: one piece at a time, in a thread of lower priority.

One at a time, because such work holds the interpreter anyway, and its copies would add up in memory. It must consist of
short steps: a single call of a C function holds up the event loop just as if it were made there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.machine.priority import lower_priority

T = TypeVar("T")
# Takes the event loop about as long as handing it over to the thread.
SMALL_BYTES = 1 << 16

_THREAD = ThreadPoolExecutor(1, "aside", initializer=lower_priority)


async def aside(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_THREAD, work)


async def aside_if_large(size_bytes: int, work: Callable[[], T]) -> T:
    """At once if `size_bytes`, what it has to do with, are few."""
    return work() if size_bytes <= SMALL_BYTES else await aside(work)
