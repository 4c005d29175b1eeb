"""python pulse.py FILE ARGUMENTS: `repvgg ARGUMENTS` with a pulse in its event loop.

FILE holds a double: the longest time between two beats, in seconds of CPU time of the process. It counts the event loop
and whoever else holds the GIL, but not the time for which a busy machine keeps the process from running.
"""

from __future__ import annotations

import asyncio
import mmap
import socket
import sys
import time
from pathlib import Path

from uvicorn import Server

PERIOD_S = 0.001


def start_beating(longest_s: memoryview) -> None:
    loop = asyncio.get_running_loop()

    def beat(last_s: float) -> None:
        now_s = time.process_time()
        longest_s[0] = max(longest_s[0], now_s - last_s)
        loop.call_later(PERIOD_S, beat, now_s)

    beat(time.process_time())


def with_pulse(longest_s: memoryview) -> None:
    serve = Server.serve

    async def beating(self: Server, sockets: list[socket.socket] | None = None) -> None:
        start_beating(longest_s)
        await serve(self, sockets)

    Server.serve = beating  # type: ignore[method-assign]


if __name__ == "__main__":
    from service.__main__ import main

    with Path(sys.argv.pop(1)).open("r+b") as file:
        with_pulse(memoryview(mmap.mmap(file.fileno(), 8)).cast("d"))
    raise SystemExit(main())
