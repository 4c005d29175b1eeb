"""What a supervisor and its worker must always be able to tell each other: signals one way, beats the other.

1. nothing here waits for a lock, for an answer or for room in the socket: metrics and reloads have their own channel;
2. a healthy worker is never taken for stuck: the supervisor counts how often it has looked without finding a beat, so
   being busy or stopped itself does not make it impatient;
3. each side sees the end of the other.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

BEAT_EVERY_S = 1.0
# A probe from outside reaches an arbitrary worker, so /livez alone would find a stuck one only by luck.
LOOK_EVERY_S = 1.0
STUCK_AFTER_LOOKS = 30
PACKET_BYTES = 1 << 10
ALIVE = b"alive"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def lifeline() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the worker's. Packets stay separate, and the end of a side reads as an empty one."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _packets(connection: socket.socket) -> tuple[list[bytes], bool]:
    """Those that have arrived, and whether the other side has ended."""
    packets: list[bytes] = []
    try:
        while packet := connection.recv(PACKET_BYTES, socket.MSG_DONTWAIT):
            packets.append(packet)
    except BlockingIOError:
        return packets, False
    except OSError:  # the other side was killed
        return packets, True
    return packets, True


def _send(connection: socket.socket, packet: bytes) -> None:
    with suppress(OSError):  # it has ended, or a hundred packets are unread
        connection.send(packet[:PACKET_BYTES], socket.MSG_DONTWAIT)


def end_with_supervisor(immediately: bool) -> None:
    """For a worker that cannot see the end of its supervisor yet: the system kills it then."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL if immediately else 0)
    supervisor = multiprocessing.parent_process()
    if immediately and supervisor is not None and os.getppid() != supervisor.pid:  # it has ended already
        os._exit(1)


class Monitor:
    """The supervisor's end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def pass_on(self, name: str) -> None:
        """The name of a signal."""
        _send(self._connection, name.encode())

    async def why_stuck(self, watched: Callable[[], bool]) -> str:
        """Waits until the worker is stuck -> why; "" if it has ended. While it is not `watched`, it may be silent."""
        missed = 0
        while missed < STUCK_AFTER_LOOKS:
            await asyncio.sleep(LOOK_EVERY_S)
            beats, ended = _packets(self._connection)
            if ended:
                return ""
            if beats and beats[-1] != ALIVE:
                return beats[-1].decode(errors="replace")
            missed = 0 if beats or not watched() else missed + 1
        return f"it has not answered for {STUCK_AFTER_LOOKS * LOOK_EVERY_S:g} s"

    def close(self) -> None:
        self._connection.close()


class Lifeline:
    """The worker's end. `why_not_alive`: "" if it is."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ended = asyncio.Event()

    async def run(self, on_signal: Callable[[signal.Signals], None], why_not_alive: Callable[[], str]) -> None:
        """Until the supervisor has ended."""

        def read() -> None:
            names, ended = _packets(self._connection)
            for name in names:
                on_signal(signal.Signals[name.decode()])
            if ended:
                loop.remove_reader(self._connection)
                self._ended.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(self._connection, read)
        end_with_supervisor(immediately=False)
        try:
            while not self._ended.is_set():
                _send(self._connection, why_not_alive().encode() or ALIVE)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), BEAT_EVERY_S)
        finally:
            loop.remove_reader(self._connection)
