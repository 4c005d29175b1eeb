"""What the parent and the child of a hosted engine say to each other. Both import it, so it keeps to Python 3.7.

The channel is a socket pair with one JSON object per line. The parent asks one question at a time and waits for the
answer: first the order (`engine`, `bundle`, `precision`, `threads`, `options`), answered with the engine's facts
(ENGINE_FACTS); then `{"images": N}` for each batch, answered with `{}`. Instead of an answer there may be `{"error":
class name, "text": text}`. Tensors are not sent: they lie in memory that both map.
"""

from __future__ import annotations

import json
import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import BundleError
from service.errors import ConfigError, EngineUnavailable

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.manifest import Precision

ENGINE_FACTS = ("name", "precision", "device", "input_size", "num_classes")
# Errors that keep their class on the way; any other becomes a RuntimeError.
ERRORS = {error.__name__: error for error in (BundleError, ConfigError, EngineUnavailable)}
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Order:
    """What the child opens: `engine` is `module:Class`, `options` are further arguments of its `open`."""

    engine: str
    bundle: str
    precision: Precision
    threads: int
    options: Mapping[str, str | int]


class Channel:
    """One end of the socket pair."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("r")

    def send(self, **fields: Any) -> None:
        """Raises ConnectionError."""
        self._connection.sendall(json.dumps(fields).encode() + b"\n")

    def receive(self) -> Any:
        """The next object, None once the other side has closed. Raises ConnectionError, and TimeoutError if the socket
        has a timeout."""
        line = self._lines.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        self._lines.close()
        self._connection.close()


def error_fields(error: Exception) -> dict[str, str]:
    return {"error": type(error).__name__, "text": str(error)}


def raise_error(answer: dict[str, Any]) -> None:
    """If the answer is one."""
    if "error" in answer:
        known = ERRORS.get(answer["error"])
        raise known(answer["text"]) if known else RuntimeError(f"{answer['error']}: {answer['text']}")


class SharedTensors:
    """One batch of images, float32 (N, 3, S, S), and its logits, float32 (N, K), in a file that both processes map.

    `views` grows the file and the mapping as needed.
    """

    def __init__(self, file: int, input_size: int, num_classes: int) -> None:
        self._file = file
        self._image_shape = (3, input_size, input_size)
        self._num_classes = num_classes
        self._mapped = b""  # type: bytes | mmap.mmap

    def views(self, images: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The images and the logits of a batch of `images`. These are no copies: the next batch overwrites them."""
        inputs, outputs = images * int(np.prod(self._image_shape)), images * self._num_classes
        size_bytes = (inputs + outputs) * FLOAT32_BYTES
        if len(self._mapped) < size_bytes:
            if os.fstat(self._file).st_size < size_bytes:
                os.ftruncate(self._file, size_bytes)
            self._mapped = mmap.mmap(self._file, size_bytes)
        values = np.frombuffer(self._mapped, np.float32, inputs + outputs)
        return values[:inputs].reshape(images, *self._image_shape), values[inputs:].reshape(images, self._num_classes)
