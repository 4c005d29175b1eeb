"""A worker process from its supervisor's side: starting, questions, monitoring, and killing it if it is stuck."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import socket
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess

from service.observe.aggregation import Snapshot
from service.runtime.messages.channel import Channel, ChannelClosed
from service.runtime.messages.lifeline import Monitor, lifeline
from service.runtime.signals import signals_blocked
from service.runtime.workers.worker import work
from service.settings import Settings

# If a worker does not answer in this time, its last answer is used.
SAMPLES_S = 2.0
log = logging.getLogger(__name__)


@dataclass
class WorkerHandle:
    """`samples`: its metrics when it was last asked; `serves`: it has opened its model; `killed`: why, by us."""

    number: int
    process: SpawnProcess
    channel: Channel
    monitor: Monitor
    samples: Snapshot = field(default_factory=list)
    serves: bool = False
    killed: str = ""

    @classmethod
    def start(cls, number: int, settings: Settings, listener: socket.socket, *, open_first: bool) -> WorkerHandle:
        """Raises OSError. `open_first`: accept no connections before the model is open."""
        (channel, its_channel), (monitor, its_lifeline) = socket.socketpair(), lifeline()
        arguments = (number, settings, listener, its_channel, its_lifeline, open_first)
        process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
        with its_channel, its_lifeline, signals_blocked():
            process.start()
        return cls(number, process, Channel(channel), Monitor(monitor))

    async def ended(self) -> int:
        """Wait for its end -> the exit code, negative if a signal killed it."""
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
        """Until it ends, or is killed because it is stuck."""
        if reason := await self.monitor.why_stuck(lambda: self.serves):
            log.error("worker %d is killed: %s", self.number, reason)
            self.kill(reason)

    def kill(self, why: str) -> None:
        self.killed = why
        self.process.kill()
