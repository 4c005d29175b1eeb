"""One of several processes that serve on one port: as its supervisor sees it, and what runs in it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess

from service import logs
from service.channel import Channel, ChannelClosed
from service.cli.console import Console
from service.cli.exits import report
from service.settings import Settings
from service.totals import Snapshot

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# A worker that does not answer in this time counts with what it answered last.
SAMPLES_S = 2.0
# A probe from outside reaches any worker, so that /livez alone would find a stuck one by luck.
WATCH_EVERY_S = 10.0
STUCK_AFTER_S = 30.0

log = logging.getLogger(__name__)


@dataclass
class Worker:
    """`samples`: what it counted, as of the last time that somebody asked; `serves`: has it opened its model?"""

    number: int
    process: SpawnProcess
    channel: Channel
    samples: Snapshot = field(default_factory=list)
    serves: bool = False

    @classmethod
    def start(cls, number: int, settings: Settings, listener: socket.socket, *, open_first: bool) -> Worker:
        """Raises OSError. `open_first`: it accepts no connection before its model is open."""
        ours, theirs = socket.socketpair()
        arguments = (number, settings, listener, theirs, open_first)
        process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
        with theirs, _signals_blocked():
            process.start()
        return cls(number, process, Channel(ours))

    async def ended(self) -> int:
        """Waits -> its exit code; that of a worker killed by a signal is negative."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self.process.sentinel)
        self.process.join()
        return self.process.exitcode or 0

    async def refresh(self) -> None:
        with contextlib.suppress(asyncio.TimeoutError, ChannelClosed):
            self.samples = await asyncio.wait_for(self.channel.ask("samples"), SAMPLES_S)

    async def watch(self) -> None:
        """Until it ends, or is killed because it is not alive any more."""
        reason = ""
        try:
            while not reason:
                await asyncio.sleep(WATCH_EVERY_S)
                if self.serves:
                    reason = await asyncio.wait_for(self.channel.ask("why not alive"), STUCK_AFTER_S)
        except asyncio.TimeoutError:
            reason = f"it has not answered for {STUCK_AFTER_S:g} s"
        except ChannelClosed:
            return
        log.error("worker %d is killed: %s", self.number, reason)
        self.process.kill()

    async def signal(self, name: str) -> None:
        with contextlib.suppress(ChannelClosed):
            await self.channel.ask("signal", name=name)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process started meanwhile has them blocked from its first moment on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def work(number: int, settings: Settings, listener: socket.socket, connection: socket.socket, open_first: bool) -> None:
    """A worker, in its own process."""
    for each in SIGNALS:  # the whole process group may get them; the supervisor says what they mean
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    logs.configure(settings.log_format, sys.stdout, worker=number)
    from service.cli.server import serve  # the web framework: not before it is needed

    try:
        serve(settings, listener, channel=Channel(connection), open_first=open_first)
    except Exception as error:  # noqa: BLE001  # as in `main`
        sys.exit(report(error, "serve", Console(os.environ, sys.stdout, sys.stderr)))
