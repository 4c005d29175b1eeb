"""Memory that is free goes back to the system.

1. glibc keeps what was freed, in an arena for each thread: after a storm of large requests that was four times the
   memory of the service (measured). Here it is returned within MOST_PERIOD_S;
2. large blocks have pages of their own (`give_large_blocks_pages`) and are returned at once.

Other C libraries do without this.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from functools import partial
from pathlib import Path

from service.machine.aside import aside

# The first pause, and the longest: each trim that returns next to nothing doubles it. A trim takes 0.1 to 3 ms.
PERIOD_S = 1.0
MOST_PERIOD_S = 4.0
# Above its least, the resident size may lie by this factor.
GROWTH = 1.05
# mallopt(3). Blocks of this size and above are those of large bodies and of photos from 1 megapixel on.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGE_BYTES = 4 << 20
# What the top of an arena may keep: what a photo of the usual size takes must not come from the system each time.
TOP_BYTES = 8 << 20


def give_large_blocks_pages() -> None:
    """By default glibc gives up on this once a large block was freed: it raises the threshold up to 32 MiB."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, TOP_BYTES)


def resident_bytes() -> int:
    """Of this process: proc(5), statm."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def return_free_memory(period_s: float = PERIOD_S) -> None:
    """Until cancelled."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return
    least, pause_s = resident_bytes(), period_s
    while True:
        await asyncio.sleep(pause_s)
        before = resident_bytes()
        least = min(least, before)
        if before <= GROWTH * least:
            pause_s = period_s
            continue
        await aside(partial(trim, 0))
        helped = GROWTH * resident_bytes() < before
        pause_s = period_s if helped else min(2 * pause_s, MOST_PERIOD_S)
