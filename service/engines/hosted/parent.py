"""One process with an engine in it, seen from our side. `engines.restarting` starts another when it dies.

1. a batch is copied once into memory that both processes map, its logits once out of it;
2. what the process writes goes to our log, line by line, and can flood neither log nor memory;
3. the process never outlives us, and nothing of it is left behind.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from models.manifest import Precision
from service.engines.backoff import Backoff
from service.engines.base import Engine
from service.engines.hosted import child
from service.engines.hosted.protocol import Channel, Order, SharedTensors, raise_error
from service.engines.restarting import CLOSE_S, EngineEnded, RestartingEngine
from service.errors import ConfigError, EngineUnavailable

# An Ascend device compiles some networks when they are opened.
OPEN_S = 600.0
# How long callers wait for a process that is restarted. With this and the default backoff, a whole batch of images that
# kill the process is done, one by one, before /livez takes the engine for stuck.
WAIT_S = 8.0
LINE_BYTES = 2000
LINES_PER_MINUTE = 200
LAST_LINES = 3

log = logging.getLogger(__name__)


def open_hosted(
    python: str,
    order: Order,
    check: Callable[[Engine], object],
    backoff: Backoff | None = None,
    wait_s: float = WAIT_S,
) -> RestartingEngine:
    """An engine in a process of the interpreter `python`; `check` raises if a restarted one is not right.

    Raises what the engine's own `open` raises, ConfigError if `python` cannot be run, EngineUnavailable.
    """
    return RestartingEngine.open(partial(EngineProcess, python, order), check, backoff or Backoff(), wait_s)


class EngineProcess:
    """One process, and the engine in it: a `restarting.Life`.

    Create it in a thread that lives as long as the process should: the system kills it when that thread ends.
    """

    def __init__(self, python: str, order: Order) -> None:
        """Starts it; `open` waits until its engine is open. Raises ConfigError."""
        self._lock = threading.Lock()
        self._tensors: SharedTensors | None = None
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._order = order
        ours, theirs = socket.socketpair()
        # It has no name in a file system, so there is nothing to remove, and no limit of /dev/shm.
        self._tensors_file = os.memfd_create("engine-tensors")
        files = (theirs.fileno(), self._tensors_file)
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [python, "-u", child.__file__, *map(str, (*files, os.getpid()))],
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
        self._connection = ours
        self._channel = Channel(ours)
        self._reader = threading.Thread(target=self._log_lines, name="engine-log", daemon=True)
        self._reader.start()

    def open(self) -> Engine:
        """Raises what the engine's `open` raises, EngineUnavailable if the process ends or is too slow."""
        self._connection.settimeout(OPEN_S)
        try:
            facts = self._ask(**vars(self._order))
        except TimeoutError as error:
            raise EngineUnavailable(f"the engine was not open after {OPEN_S:g} s") from error
        except EngineEnded as error:
            raise EngineUnavailable(f"{error} before the engine was open; {self._last_words()}") from error
        self._connection.settimeout(None)
        self.name: str = facts["name"]
        self.precision = cast(Precision, facts["precision"])
        self.device: str = facts["device"]
        self.input_size: int = facts["input_size"]
        self.num_classes: int = facts["num_classes"]
        self._tensors = SharedTensors(self._tensors_file, self.input_size, self.num_classes)
        return self

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K). Raises RuntimeError for the engine's errors, EngineEnded."""
        with self._lock:
            if self._tensors is None:
                raise EngineEnded(self.wait())
            inputs, outputs = self._tensors.views(len(images))
            if images.shape != inputs.shape:
                raise ValueError(f"images must be {inputs.shape}, not {images.shape}")
            inputs[...] = images
            self._ask(images=len(images))
            return np.array(outputs)

    def _ask(self, **fields: Any) -> dict[str, Any]:
        """Raises the error that the child answers, EngineEnded, TimeoutError."""
        try:
            self._channel.send(**fields)
            answer = self._channel.receive()
        except ConnectionError:
            answer = None
        if answer is None:
            self.end(CLOSE_S)
            raise EngineEnded(self.wait())
        raise_error(answer)
        return cast(dict[str, Any], answer)

    def wait(self) -> str:
        """Until it has ended -> how: `the engine's process ended (SIGSEGV)`, `... (exit code 1)`."""
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the engine's process ended ({how})"

    def end(self, grace_s: float) -> None:
        """Tell it to end, kill it if it takes longer than `grace_s`."""
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("the engine's process closed its end first")
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def close(self) -> None:
        """As an Engine's: end it, and wait until it has."""
        self.end(CLOSE_S)
        self._process.wait()

    def free(self) -> None:
        """Close the files of a process that has ended."""
        self._process.wait()
        with self._lock:
            self._tensors = None
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
                if lines <= LINES_PER_MINUTE:
                    log.info("engine process: %s", text)
                elif lines == LINES_PER_MINUTE + 1:
                    log.warning(
                        "the engine's process writes more than %d lines a minute: the rest is lost", LINES_PER_MINUTE
                    )
