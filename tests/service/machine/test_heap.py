"""In processes of their own: what the C library keeps depends on all that came before."""

from __future__ import annotations

import subprocess
import sys

KEPT = """
import asyncio
from service.machine.heap import give_large_blocks_pages, resident_bytes, return_free_memory

MEGABYTE = 1 << 20
before = resident_bytes()
"""
BETWEEN = """
async def scenario():
    trimming = asyncio.create_task(return_free_memory(0.01))
    await asyncio.sleep(0)
    blocks = [b"x" * (MEGABYTE // 16 + number) for number in range(1600)]
    last = bytes(MEGABYTE // 16)  # above the others: they cannot be cut off
    blocks.clear()
    kept = resident_bytes()
    for _ in range(500):
        await asyncio.sleep(0.02)
        if resident_bytes() < before + 20 * MEGABYTE:
            break
    trimming.cancel()
    print((kept - before) // MEGABYTE, (resident_bytes() - before) // MEGABYTE)

asyncio.run(scenario())
"""
LARGE = """
give_large_blocks_pages()
for _ in range(3):
    block, above = bytes(20 * MEGABYTE), bytes(MEGABYTE)
    del block
print((resident_bytes() - before) // MEGABYTE)
"""


def printed(program: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", KEPT + program], capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


def test_what_was_freed_is_returned_though_something_lies_above_it() -> None:
    kept_mb, left_mb = printed(BETWEEN)
    assert kept_mb > 90
    assert left_mb < 20


def test_large_blocks_are_returned_at_once() -> None:
    assert printed(LARGE)[0] < 10
