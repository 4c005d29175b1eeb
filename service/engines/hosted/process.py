"""One process with an engine in it, from its start to its end. `engine.py` starts another when it dies.

1. a batch is copied once into the memory that both processes map, its logits once out of it;
2. what it writes goes to our log, line by line, and can flood neither log nor memory;
3. it never outlives us, and nothing of it is left behind.

The other side is `service.engines.hosted.child`.
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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleError
from models.manifest import Precision
from service.engines.hosted import child
from service.errors import ConfigError, EngineUnavailable

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


class ProcessEnded(Exception):
    """The process died with a batch in it."""


class EngineProcess:
    """One process from its start to its end, and the engine in it.

    Create it in a thread that lives as long as it should: the system kills it when that thread ends.
    """

    def __init__(self, python: str, order: Order) -> None:
        """Starts it; `open` waits until its engine is open. Raises ConfigError."""
        self._lock = threading.Lock()
        self._tensors: child.SharedTensors | None = None
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._order = order
        ours, theirs = socket.socketpair()
        # Without a name in a file system: there is nothing to remove, nor a limit of /dev/shm to meet.
        self._tensors_file = os.memfd_create("engine-tensors")
        files = (theirs.fileno(), self._tensors_file)
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [python, "-u", child.__file__, *map(str, files)],
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
        self.device: str = opened["device"]
        self.input_size: int = opened["input_size"]
        self.num_classes: int = opened["num_classes"]
        self._tensors = child.SharedTensors(self._tensors_file, self.input_size, self.num_classes)

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

    def kill(self) -> None:
        self._process.kill()

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
