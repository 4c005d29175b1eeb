"""Several worker processes on one port: the supervisor starts and monitors them, and asks all of them.

1. the first worker opens the model and chooses the engine; the others start with its choice, so all answer alike;
2. a worker that ends, or is killed because it is stuck, is replaced, after a growing delay if it keeps ending early;
   the replacement accepts connections once its model is open;
3. if the first worker cannot start, all end with its exit code; later ones are retried while the others keep serving:
   all end only if none is left;
4. at shutdown, workers that are still opening their model are not waited for;
5. each worker gets SIGTERM, SIGINT and SIGHUP exactly once, even if the whole process group gets them; the exit code
   is 0 if all workers ended cleanly;
6. metrics cover all workers, including those that have ended, so that no counter ever decreases;
7. feedback is passed on until it reaches the worker that gave the answer;
8. a reload is tried on one worker first; if that succeeds, the others follow, and the answer comes once all serve.

All workers accept from the same listening socket, so that no pending connection is lost when one of them ends.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from service.engines.backoff import Backoff, Restarts
from service.errors import NotReady, ReloadRunning, ServiceError, UnknownRequest
from service.machine.limits import usable_cpus
from service.observe.aggregation import Snapshot, merge, snapshot, without_gauges
from service.observe.metrics import LifeMetrics
from service.runtime.exits import EXIT_CODES, FAILURE
from service.runtime.messages.channel import ChannelClosed
from service.runtime.signals import SIGNALS
from service.runtime.workers.handle import WorkerHandle
from service.settings import Settings

RETRY_WHILE_STARTING_S = 1.0
# For a worker to say whether it remembers an answer; a worker busy with a large image takes a tenth of it.
JUDGE_S = 2.0
# For a worker that does not serve yet to end by itself. It may be importing, or be in a runtime that takes minutes.
OPENING_END_S = 0.5
# Longer than a worker takes to force its own end.
KILL_AFTER_S = 30.0

NOT_WAITED_FOR = "it does not serve yet"

log = logging.getLogger(__name__)


def supervise(settings: Settings, listener: socket.socket) -> int:
    """Blocks until a signal -> the exit code. Workers that cannot start print the reason on stderr."""
    return asyncio.run(Supervisor(settings, listener).run())


class Supervisor:
    """`_configured`: the model in the settings; `_chosen`: what the workers serve, once the first one does; `_version`:
    why that is not the newest version, if so; `_missing`: what happened to workers that do not serve, by number."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        share = max(1, usable_cpus() // settings.workers)
        threads = {name: getattr(settings, name) or share for name in ("engine_threads", "decode_threads")}
        self._settings = settings.model_copy(update=threads)
        self._listener = listener
        self._configured = {name: getattr(settings, name) for name in ("model", "engine", "precision")}
        self._chosen: dict[str, str] = {}
        self._workers: dict[int, WorkerHandle] = {}
        self._version = ""
        self._missing: dict[int, str] = {}
        self._ended_workers_samples: Snapshot = []
        self._metrics = LifeMetrics(CollectorRegistry())
        self._reloading = False
        self._first_opened = asyncio.Event()
        self._stopping = asyncio.Event()
        self._exit_code = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        slots = [loop.create_task(self._keep_running(1))]
        await _wait_for_first(self._first_opened.wait(), self._stopping.wait())
        if not self._stopping.is_set():
            slots += [loop.create_task(self._keep_running(number)) for number in range(2, self._settings.workers + 1)]
        await self._stopping.wait()
        self._listener.close()  # the workers keep theirs open until they have drained
        self._spawn(self._end_those_that_open())
        _, stuck = await asyncio.wait(slots, timeout=self._longest_end_s())
        for worker in list(self._workers.values()) if stuck else ():
            log.error("worker %d did not end in time and is killed", worker.number)
            worker.kill("too slow")
        await asyncio.gather(*slots)
        log.info("all workers have ended")
        return self._exit_code

    def _longest_end_s(self) -> float:
        return self._settings.drain_seconds + self._settings.timeout_ms / 1000 + KILL_AFTER_S

    async def _end_those_that_open(self) -> None:
        await asyncio.sleep(OPENING_END_S)
        for worker in self._workers.values():
            if not worker.serves:
                worker.kill(NOT_WAITED_FOR)

    async def _keep_running(self, number: int) -> None:
        """Run a worker, and replace it whenever it ends."""
        restarts = Restarts(Backoff())
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run_once(number)
            if self._stopping.is_set():
                self._exit_code = self._exit_code or (FAILURE if code else 0)
            elif not self._chosen or (code in EXIT_CODES.values() and not self._workers):
                log.error("worker %d cannot start (exit code %d): all workers end", number, code)
                self._stop(code if code > 0 else FAILURE)
            else:
                delay_s = restarts.delay_after(time.monotonic() - started)
                log.error("worker %d ended (exit code %d); a replacement starts in %g s", number, code, delay_s)
                self._metrics.restarts.inc()
                self._missing[number] = (
                    f"worker {number} ended with exit code {code} and is replaced after {delay_s:g} s"
                )
                await _wait_for_first(self._stopping.wait(), asyncio.sleep(delay_s))

    async def _run_once(self, number: int) -> int:
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
        self._ended_workers_samples = merge([self._ended_workers_samples, without_gauges(worker.samples)])
        for task in tasks:
            task.cancel()
        worker.monitor.close()
        return 0 if worker.killed == NOT_WAITED_FOR else code

    def _start(self, number: int) -> WorkerHandle:
        settings = self._settings.model_copy(update=self._chosen)
        worker = WorkerHandle.start(number, settings, self._listener, open_first=bool(self._chosen))

        async def opened(serves: dict[str, str], older: str) -> None:
            worker.serves = True
            self._missing.pop(number, None)
            if not self._chosen:
                self._note_version(older)
            self._chosen = self._chosen or serves
            self._first_opened.set()
            if serves != self._chosen:  # a reload happened while it was opening the model
                worker.monitor.pass_on("SIGINT")

        worker.channel.answer("opened", opened)
        worker.channel.answer("samples", self._samples)
        worker.channel.answer("checks", self._checks)
        worker.channel.answer("reload", self._reload)
        worker.channel.answer("judge", partial(self._judge, worker))
        return worker

    def _note_version(self, older: str) -> None:
        """Workers that start later are told the version, so that only the first one knows of newer ones."""
        self._version = older
        self._metrics.older_bundle.set(bool(older))

    async def _checks(self) -> dict[str, str]:
        serving = sum(worker.serves for worker in self._workers.values())
        workers = "; ".join([f"{serving} of {self._settings.workers} serve", *self._missing.values()])
        return {"workers": workers} | ({"version": self._version} if self._version else {})

    async def _samples(self) -> list[Snapshot]:
        workers = list(self._workers.values())
        await asyncio.gather(*(worker.refresh() for worker in workers))
        return [*(worker.samples for worker in workers), self._ended_workers_samples, snapshot(self._metrics.registry)]

    async def _judge(self, asking: WorkerHandle, **feedback: Any) -> Any:
        """Ask one worker after the other: a request id that a client used twice must count once. Raises what the worker
        that remembers the answer raises, UnknownRequest, or NotReady if a worker did not reply."""
        error: ServiceError = UnknownRequest(
            f"no worker remembers an answer with the request_id {feedback['request_id']}: each remembers the last "
            f"{self._settings.feedback} images, until it ends"
        )
        for worker in [worker for worker in self._workers.values() if worker.serves and worker is not asking]:
            try:
                return await asyncio.wait_for(worker.channel.ask("judge", **feedback), JUDGE_S)
            except UnknownRequest:
                continue
            except (asyncio.TimeoutError, ChannelClosed):
                error = NotReady(f"worker {worker.number} does not answer", RETRY_WHILE_STARTING_S)
        raise error

    async def _reload(self, changes: dict[str, str]) -> None:
        """Raises ReloadRunning, NotReady, and whatever the first worker raises; nothing has changed in that case."""
        if self._reloading:
            raise ReloadRunning("another reload is running; retry when it has finished")
        self._reloading = True
        try:
            first = next((worker for worker in self._workers.values() if worker.serves), None)
            if first is None:
                raise NotReady("no worker serves yet", RETRY_WHILE_STARTING_S)
            self._chosen = await first.channel.ask("reload", changes=self._configured | changes)
            self._note_version("")
            for worker in [worker for worker in self._workers.values() if worker.serves and worker is not first]:
                await self._follow(worker)
        finally:
            self._reloading = False

    async def _follow(self, worker: WorkerHandle) -> None:
        """Never raises: a worker that cannot reload is replaced by one that starts with the new choice."""
        try:
            await worker.channel.ask("reload", changes=self._chosen)
        except (ServiceError, ChannelClosed) as error:
            log.error("worker %d could not reload and is replaced: %s", worker.number, error)
            worker.monitor.pass_on("SIGINT")

    def _on_signal(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP:
            self._spawn(self._reload_on(number.name))
            return
        log.info("%s: stopping %d workers", number.name, len(self._workers))
        self._pass_on(number.name)
        self._stopping.set()

    async def _reload_on(self, name: str) -> None:
        try:
            await self._reload({})
        except (ServiceError, ChannelClosed) as error:
            log.error("%s: reload failed, the current model keeps serving: %s", name, error)

    def _stop(self, code: int) -> None:
        """Stop as after SIGTERM, with this exit code."""
        self._exit_code = code
        self._pass_on("SIGTERM")
        self._stopping.set()

    def _pass_on(self, name: str) -> None:
        for worker in self._workers.values():
            worker.monitor.pass_on(name)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _wait_for_first(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
