"""An engine in a process of its own, of any interpreter: whatever its native runtime does, the service lives on.

1. a process that dies fails the batch that was in it, and no other;
2. it is started again, later each time it dies soon, and is used again only after the golden check;
3. who asks meanwhile waits for it, but not for long: then NotReady says when to come again;
4. `away_s` tells the truth about it, also when it dies while nothing is asked of it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.manifest import Precision
from service.engines.backoff import PATIENCE, Patience
from service.engines.base import Engine
from service.engines.hosted.process import EngineProcess, Order, ProcessEnded
from service.errors import NotReady

log = logging.getLogger(__name__)


class HostedEngine:
    """An engine whose process is started again when it dies. `open` makes one.

    `name`, `precision`, `device`, `input_size` and `num_classes` are those of the engine in the process.
    """

    name: str
    precision: Precision
    device: str
    input_size: int
    num_classes: int

    def __init__(self, python: str, order: Order, check: Callable[[Engine], object], patience: Patience) -> None:
        self._python = python
        self._order = order
        self._check = check
        self._patience = patience
        self._changed = threading.Condition()
        self._process: EngineProcess | None = None
        self._is_present = False
        self._was_present = False
        self._closed = False
        self._failure: Exception | None = None
        self._away_since = self._expected_back = time.monotonic()
        self._start_s = 0.0
        self._supervisor = threading.Thread(target=self._supervise, name="engine-supervisor", daemon=True)

    @classmethod
    def open(
        cls, python: str, order: Order, check: Callable[[Engine], object], patience: Patience = PATIENCE
    ) -> HostedEngine:
        """`python` is the path of an interpreter; `check` raises if an engine that was started again is not right.

        Raises what the engine's own `open` raises, ConfigError for a path that is none, EngineUnavailable.
        """
        engine = cls(python, order, check, patience)
        engine._supervisor.start()
        with engine._changed:
            engine._changed.wait_for(lambda: engine._was_present or engine._failure)
        if engine._failure:
            engine._supervisor.join()
            raise engine._failure
        return engine

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K). Raises ProcessEnded, NotReady, and the engine's errors."""
        process = self._present_process()
        try:
            return process.infer(images)
        except ProcessEnded:
            self._leave(process)
            raise

    @property
    def away_s(self) -> float:
        """How long the process has been away, seconds; 0 while it is there."""
        with self._changed:
            return 0.0 if self._is_present else time.monotonic() - self._away_since

    def restart(self) -> None:
        """Kill the process: its supervisor starts the next one."""
        with self._changed:
            process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process, by force if need be."""
        with self._changed:
            self._closed = True
            process = self._process
            self._changed.notify_all()
        if process is not None:
            process.close()
        self._supervisor.join()

    def _present_process(self) -> EngineProcess:
        """Waits for it. Raises NotReady."""
        with self._changed:
            patience_s = self._away_since + self._patience.wait_s - time.monotonic()
            self._changed.wait_for(lambda: self._is_present or self._closed, max(0.0, patience_s))
            if self._process is None or not self._is_present:
                back_in_s = max(0.0, self._expected_back - time.monotonic())
                raise NotReady("the engine's process ended and is being started again", back_in_s)
            return self._process

    def _supervise(self) -> None:
        """The supervisor's life. It creates the processes, because each ends with the thread that created it."""
        early_ends = 0
        while not self._closed:
            started = time.monotonic()
            self._run_once()
            if self._failure is not None:
                return
            early_ends = early_ends + 1 if time.monotonic() - started < self._patience.soon_s else 1
            self._pause(self._patience.delay_s(early_ends))

    def _pause(self, delay_s: float) -> None:
        with self._changed:
            self._expected_back = time.monotonic() + delay_s + self._start_s
            self._changed.wait_for(lambda: self._closed, delay_s)

    def _run_once(self) -> None:
        """One process, from its start to its end."""
        process: EngineProcess | None = None
        try:
            process = EngineProcess(self._python, self._order)
            with self._changed:
                self._process = process
            if not self._closed:  # else `close` may have come too early to see it
                self._bring_in(process)
                how = process.wait()
                log.log(logging.INFO if self._closed else logging.ERROR, "the engine's process ended (%s)", how)
        except Exception as error:  # noqa: BLE001  # a runtime may raise anything
            self._report(error)
        finally:
            if process is not None:
                self._leave(process)
                process.close()
                process.free()

    def _bring_in(self, process: EngineProcess) -> None:
        started = time.monotonic()
        process.open()
        if self._was_present:
            self._check(process)
            log.info("the engine's process %d is there again", process.pid)
        with self._changed:
            self.name, self.precision, self.device = process.name, process.precision, process.device
            self.input_size, self.num_classes = process.input_size, process.num_classes
            self._start_s = time.monotonic() - started
            self._is_present = self._was_present = True
            self._changed.notify_all()

    def _report(self, error: Exception) -> None:
        """The first start's error is raised by `open`; after that another start is tried."""
        if self._was_present:
            log.error("the engine's process could not be started again: %s", error)
            return
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _leave(self, process: EngineProcess) -> None:
        """Whoever notices first says so; who notices late says nothing about the next process."""
        with self._changed:
            if self._is_present and process is self._process:
                self._is_present = False
                self._away_since = time.monotonic()
