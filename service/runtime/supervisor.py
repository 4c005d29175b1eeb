"""Several processes on one port: one process that starts them, watches them, and asks all what one of them is asked.

1. the first worker opens the model and chooses the engine, the others are started with its choice: all answer alike;
2. a worker that dies, or is stuck and killed, is started again, later each time it dies soon; it accepts connections
   when its model is open;
3. a worker that cannot start ends the whole, with its exit code;
4. SIGTERM, SIGINT and SIGHUP reach every worker once, whoever else got them; the end is clean when that of all was;
5. metrics are those of all workers, those of dead ones included: no counter ever goes back;
6. a reload is tried on one worker first; when that serves, the others follow, and the answer comes when all serve.

All workers accept from the one listening socket, so that a connection that waits is lost with none of them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from typing import Any

from service.engines.backoff import Backoff, Restarts
from service.errors import NotReady, ReloadRunning, ServiceError
from service.machine.limits import usable_cpus
from service.observe.aggregation import Snapshot, total, without_gauges
from service.runtime.channel import ChannelClosed
from service.runtime.exits import EXIT_CODES, FAILURE
from service.runtime.signals import SIGNALS
from service.runtime.worker_handle import WorkerHandle
from service.settings import Settings

RETRY_WHILE_STARTING_S = 1.0
# More than a worker's own limit at its end.
KILL_AFTER_S = 30.0

log = logging.getLogger(__name__)


def supervise(settings: Settings, listener: socket.socket) -> int:
    """Blocks until a signal -> the exit code. The workers say on stderr what keeps them from starting."""
    return asyncio.run(Supervisor(settings, listener).run())


class Supervisor:
    """`_told`: what the settings say of the model; `_chosen`: what the workers serve, once the first one does."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        share = max(1, usable_cpus() // settings.workers)
        threads = {name: getattr(settings, name) or share for name in ("engine_threads", "decode_threads")}
        self._settings = settings.model_copy(update=threads)
        self._listener = listener
        self._told = {name: getattr(settings, name) for name in ("model", "engine", "precision")}
        self._chosen: dict[str, str] = {}
        self._workers: dict[int, WorkerHandle] = {}
        self._of_the_dead: Snapshot = []
        self._reloading = False
        self._first_opened = asyncio.Event()
        self._stopping = asyncio.Event()
        self._exit_code = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        slots = [loop.create_task(self._keep(1))]
        await _first_of(self._first_opened.wait(), self._stopping.wait())
        if not self._stopping.is_set():
            slots += [loop.create_task(self._keep(number)) for number in range(2, self._settings.workers + 1)]
        await self._stopping.wait()
        self._listener.close()  # the workers have theirs, until they have drained
        _, stuck = await asyncio.wait(slots, timeout=self._longest_end_s())
        for worker in list(self._workers.values()) if stuck else ():
            log.error("worker %d did not end and is killed", worker.number)
            worker.process.kill()
        await asyncio.gather(*slots)
        log.info("all workers have ended")
        return self._exit_code

    def _longest_end_s(self) -> float:
        return self._settings.drain_seconds + self._settings.timeout_ms / 1000 + KILL_AFTER_S

    async def _keep(self, number: int) -> None:
        """A worker, and when it dies another one in its place."""
        restarts = Restarts(Backoff())
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._one_life(number)
            if self._stopping.is_set():
                self._exit_code = self._exit_code or (FAILURE if code else 0)
            elif code in EXIT_CODES.values() or not self._chosen:
                log.error("worker %d cannot start (exit code %d): all end", number, code)
                self._stop(code if code > 0 else FAILURE)
            else:
                delay_s = restarts.delay_after(time.monotonic() - started)
                log.error("worker %d ended (exit code %d), another one starts in %g s", number, code, delay_s)
                await _first_of(self._stopping.wait(), asyncio.sleep(delay_s))

    async def _one_life(self, number: int) -> int:
        """Start a worker and wait for its end -> its exit code."""
        try:
            worker = self._start(number)
        except OSError as error:  # no memory, too many processes
            log.error("worker %d cannot be started: %s", number, error)
            return FAILURE
        self._workers[number] = worker
        tasks = [asyncio.create_task(task) for task in (worker.channel.run(), worker.watch())]
        code = await worker.ended()
        del self._workers[number]
        self._of_the_dead = total([self._of_the_dead, without_gauges(worker.samples)])
        for task in tasks:
            task.cancel()
        return code

    def _start(self, number: int) -> WorkerHandle:
        settings = self._settings.model_copy(update=self._chosen)
        worker = WorkerHandle.start(number, settings, self._listener, open_first=bool(self._chosen))

        async def opened(serves: dict[str, str]) -> None:
            worker.serves = True
            self._chosen = self._chosen or serves
            self._first_opened.set()
            if serves != self._chosen:  # there was a reload while it opened this
                await worker.signal("SIGINT")

        worker.channel.answer("opened", opened)
        worker.channel.answer("samples", self._samples)
        worker.channel.answer("serving", self._serving)
        worker.channel.answer("reload", self._reload)
        return worker

    async def _serving(self) -> dict[str, int]:
        serving = sum(worker.serves for worker in self._workers.values())
        return {"workers": serving, "wanted": self._settings.workers}

    async def _samples(self) -> list[Snapshot]:
        workers = list(self._workers.values())
        await asyncio.gather(*(worker.refresh() for worker in workers))
        return [*(worker.samples for worker in workers), self._of_the_dead]

    async def _reload(self, changes: dict[str, str]) -> None:
        """Raises ReloadRunning, NotReady, and what the first worker raises: then nothing has changed."""
        if self._reloading:
            raise ReloadRunning("another reload is running; ask again when it is over")
        self._reloading = True
        try:
            first = next((worker for worker in self._workers.values() if worker.serves), None)
            if first is None:
                raise NotReady("no worker serves yet", RETRY_WHILE_STARTING_S)
            self._chosen = await first.channel.ask("reload", changes=self._told | changes)
            for worker in [worker for worker in self._workers.values() if worker.serves and worker is not first]:
                await self._follow(worker)
        finally:
            self._reloading = False

    async def _follow(self, worker: WorkerHandle) -> None:
        """Raises nothing: a worker that cannot follow is replaced by one that starts with what is chosen."""
        try:
            await worker.channel.ask("reload", changes=self._chosen)
        except (ServiceError, ChannelClosed) as error:
            log.error("worker %d is replaced, since it did not reload: %s", worker.number, error)
            await worker.signal("SIGINT")

    def _on_signal(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP:
            self._spawn(self._reload_on(number.name))
            return
        log.info("%s: %d workers end", number.name, len(self._workers))
        self._pass_on(number.name)
        self._stopping.set()

    async def _reload_on(self, name: str) -> None:
        try:
            await self._reload({})
        except (ServiceError, ChannelClosed) as error:
            log.error("%s: no other model serves: %s", name, error)

    def _stop(self, code: int) -> None:
        """As by SIGTERM, with this exit code."""
        self._exit_code = code
        self._pass_on("SIGTERM")
        self._stopping.set()

    def _pass_on(self, name: str) -> None:
        for worker in self._workers.values():
            self._spawn(worker.signal(name))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _first_of(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
