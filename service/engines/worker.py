"""An engine in a process of its own, of any interpreter: whatever its native runtime does, the service lives on.

1. a process that dies fails the batch that was in it, and no other;
2. it is started again, later each time it dies soon, and is used again only after the golden check;
3. who asks meanwhile waits for it, but not for long: then NotReady says when to come again;
4. `away_s` tells the truth about it, also when it dies while nothing is asked of it;
5. what it writes goes to our log, line by line, and can flood neither log nor memory;
6. it never outlives us, and nothing of it is left behind.

The other side is `service.engines.hosted`. A batch is copied once into the memory that both processes map, its logits
once out of it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleError
from models.manifest import Precision
from service.engines import hosted
from service.engines.base import Engine
from service.errors import ConfigError, EngineUnavailable, NotReady

# An Ascend device compiles some networks when they are opened.
OPEN_S = 600.0
CLOSE_S = 5.0
LINE_BYTES = 2000
LINES_A_MINUTE = 200
LAST_LINES = 3

# Errors that keep their class on the way here; any other is a RuntimeError.
ERRORS = {error.__name__: error for error in (BundleError, ConfigError, EngineUnavailable)}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What the process is to open: `engine` is `module:Class`, `options` are further arguments of its `open`."""

    engine: str
    bundle: str
    precision: Precision
    threads: int
    options: Mapping[str, str | int]


@dataclass(frozen=True)
class Patience:
    """Seconds. Each end within `soon_s` of the start quadruples the delay before the next start, from `first_delay_s`
    to `longest_delay_s`; who asks meanwhile waits until the process has been away for `wait_s`.

    With these a batch full of images that kill it is over, one by one, before /livez takes the engine for stuck.
    """

    first_delay_s: float = 0.1
    longest_delay_s: float = 30.0
    soon_s: float = 60.0
    wait_s: float = 8.0

    def delay_s(self, early_ends: int) -> float:
        """Before the start that follows this many early ends in a row, 1 or more."""
        return min(self.longest_delay_s, self.first_delay_s * 4.0 ** min(early_ends - 1, 16))


PATIENCE = Patience()


class ProcessEnded(Exception):
    """The process died with a batch in it."""


class EngineProcess:
    """One process from its start to its end, and the engine in it.

    Create it in a thread that lives as long as it should: the system kills it when that thread ends.
    """

    def __init__(self, python: str, order: Order) -> None:
        """Starts it; `open` waits until its engine is open. Raises ConfigError."""
        self._lock = threading.Lock()
        self._tensors: hosted.SharedTensors | None = None
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._order = order
        ours, theirs = socket.socketpair()
        # Without a name in a file system: there is nothing to remove, nor a limit of /dev/shm to meet.
        self._tensors_file = os.memfd_create("engine-tensors")
        files = (theirs.fileno(), self._tensors_file)
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [python, "-u", hosted.__file__, *map(str, files)],
                pass_fds=files,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            ours.close()
            os.close(self._tensors_file)
            raise ConfigError(
                f"engine_python {python} cannot be run: {error.strerror}; give the path of a Python interpreter"
            ) from error
        finally:
            theirs.close()
        self.pid = self._process.pid
        self._channel = ours
        self._answers = ours.makefile("r")
        self._reader = threading.Thread(target=self._log_lines, name="engine-log", daemon=True)
        self._reader.start()

    def open(self) -> None:
        """Raises what the engine's `open` raises, EngineUnavailable if the process ends or is too slow."""
        self._channel.settimeout(OPEN_S)
        try:
            opened = self._ask(**vars(self._order))
        except TimeoutError as error:
            raise EngineUnavailable(f"the engine was not open after {OPEN_S:g} s") from error
        except ProcessEnded as error:
            raise EngineUnavailable(f"{error} before the engine was open; {self._last_words()}") from error
        self._channel.settimeout(None)
        self.name: str = opened["name"]
        self.precision = cast(Precision, opened["precision"])
        self.input_size: int = opened["input_size"]
        self.num_classes: int = opened["num_classes"]
        self._tensors = hosted.SharedTensors(self._tensors_file, self.input_size, self.num_classes)

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K). Raises RuntimeError for the engine's errors, ProcessEnded."""
        with self._lock:
            if self._tensors is None:
                raise ProcessEnded(f"the engine's process ended ({self.wait()})")
            inputs, outputs = self._tensors.views(len(images))
            if images.shape != inputs.shape:
                raise ValueError(f"images must be {inputs.shape}, not {images.shape}")
            inputs[...] = images
            self._ask(images=len(images))
            return np.array(outputs)

    def _ask(self, **fields: Any) -> dict[str, Any]:
        """Raises the error that it answers, ProcessEnded, TimeoutError."""
        try:
            self._channel.sendall(json.dumps(fields).encode() + b"\n")
            line = self._answers.readline()
        except ConnectionError:
            line = ""
        if not line:
            self.close()
            raise ProcessEnded(f"the engine's process ended ({self.wait()})")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = ERRORS.get(answer["error"])
            raise kind(answer["text"]) if kind else RuntimeError(f"{answer['error']}: {answer['text']}")
        return answer

    def wait(self) -> str:
        """Until it has ended -> how: `SIGSEGV`, `exit code 1`."""
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """Tell it to end, kill it if it takes longer than CLOSE_S."""
        try:
            self._channel.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("the engine's process closed its end first")
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def free(self) -> None:
        """Give back the files of a process that has ended."""
        with self._lock:
            self._tensors = None
            self._answers.close()
            self._channel.close()
            os.close(self._tensors_file)
        self._reader.join(CLOSE_S)

    def _last_words(self) -> str:
        self._reader.join(CLOSE_S)
        return "its last words: " + " | ".join(self._last_lines) if self._last_lines else "it said nothing"

    def _log_lines(self) -> None:
        minute, lines = time.monotonic(), 0
        with cast(Any, self._process.stdout) as output:
            while line := output.readline(LINE_BYTES):
                text = line.decode(errors="replace").rstrip()
                self._last_lines.append(text)
                if time.monotonic() - minute > 60:
                    minute, lines = time.monotonic(), 0
                lines += 1
                if lines <= LINES_A_MINUTE:
                    log.info("engine process: %s", text)
                elif lines == LINES_A_MINUTE + 1:
                    log.warning("the engine's process writes over %d lines a minute: the rest is lost", LINES_A_MINUTE)


class HostedEngine:
    """An engine whose process is started again when it dies. `open` makes one.

    `name`, `precision`, `input_size` and `num_classes` are those of the engine in the process.
    """

    name: str
    precision: Precision
    input_size: int
    num_classes: int

    def __init__(self, python: str, order: Order, check: Callable[[Engine], None], patience: Patience) -> None:
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
        cls, python: str, order: Order, check: Callable[[Engine], None], patience: Patience = PATIENCE
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
            self._leave()
            raise

    @property
    def away_s(self) -> float:
        """How long the process has been away, seconds; 0 while it is there."""
        with self._changed:
            return 0.0 if self._is_present else time.monotonic() - self._away_since

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
            self._leave()
            if process is not None:
                process.close()
                process.free()

    def _bring_in(self, process: EngineProcess) -> None:
        started = time.monotonic()
        process.open()
        if self._was_present:
            self._check(process)
            log.info("the engine's process %d is there again", process.pid)
        with self._changed:
            self.name, self.precision = process.name, process.precision
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

    def _leave(self) -> None:
        """Whoever notices first says so."""
        with self._changed:
            if self._is_present:
                self._is_present = False
                self._away_since = time.monotonic()
