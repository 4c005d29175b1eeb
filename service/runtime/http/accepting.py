"""Takes new connections from the listening socket.

uvloop accepts one connection in each turn of the event loop, regardless of `backlog`: while a thousand others kept it
busy, a new one waited for 5 s (measured). Here a turn accepts as many as there are, up to a limit.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

# Connections of one turn: 64 take about 5 ms.
ACCEPTS_AT_ONCE = 64
# No worker should accept all connections that arrive together before another one wakes up.
WORKER_ACCEPTS_AT_ONCE = 4
# No file or memory is left: trying again immediately does not help.
PAUSE_S = 0.1
OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logging.getLogger(__name__)


class Acceptor:
    """`listener` is closed with it."""

    def __init__(self, listener: socket.socket, make: Callable[[], asyncio.Protocol], at_once: int) -> None:
        self._listener = listener
        self._make = make
        self._at_once = at_once
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(self._at_once):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in OUT_OF_FILES:
                    raise
                log.error("a connection could not be accepted: %s", error)
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(PAUSE_S, self._listen)
                return
            task = self._loop.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, connection)
        except OSError as error:  # it is closed already
            log.debug("a connection ended as it began: %s", error)
            connection.close()

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        elif self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
        self._listener.close()

    async def wait_closed(self) -> None:
        """As that of an asyncio server."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
