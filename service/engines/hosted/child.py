"""The program in an engine's own process. `engine.py` starts it by its path, with any Python from 3.7 on.

1. it needs numpy and the engine's runtime, nothing else: this file, the engine files and what they import while they
   run keep to Python 3.7;
2. it ends when its parent does, even in the middle of a batch;
3. SIGTERM and SIGINT, which a whole process group may get, do not end it: its parent decides, by closing the channel;
4. an engine that raises is an answer, and the next batch is taken.

The channel is a socket with one JSON object a line: the order (`engine`, `bundle`, `precision`, `threads`, `options`),
then `{"images": N}` for each batch; the answers are `{"name", "precision", "device", "input_size", "num_classes"}`,
`{}`, and `{"error": class name, "text"}`. The tensors lie in shared memory.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import pathlib
import signal
import socket
import sys
import types
from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # The folder of this file: its onnxruntime.py would be found before the real one.
    sys.path.pop(0)

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.manifest import Artifact

ROOT = pathlib.Path(__file__).resolve().parents[3]
PR_SET_PDEATHSIG = 1  # linux/prctl.h
FLOAT32_BYTES = 4


class SharedTensors:
    """One batch of images, float32 (N, 3, S, S), and its logits, float32 (N, K), in a file that two processes map.

    `views` grows the file and the mapping as needed.
    """

    def __init__(self, file: int, input_size: int, num_classes: int) -> None:
        self._file = file
        self._image_shape = (3, input_size, input_size)
        self._num_classes = num_classes
        self._mapped = b""  # type: bytes | mmap.mmap

    def views(self, images: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The images and the logits of a batch of `images`. No copies: the next batch lies in the same place."""
        inputs, outputs = images * int(np.prod(self._image_shape)), images * self._num_classes
        size_bytes = (inputs + outputs) * FLOAT32_BYTES
        if len(self._mapped) < size_bytes:
            if os.fstat(self._file).st_size < size_bytes:
                os.ftruncate(self._file, size_bytes)
            self._mapped = mmap.mmap(self._file, size_bytes)
        values = np.frombuffer(self._mapped, np.float32, inputs + outputs)
        return values[:inputs].reshape(images, *self._image_shape), values[inputs:].reshape(images, self._num_classes)


class ParsedBundle:
    """A bundle that the parent has verified, read without what verified it. An engine sees no difference."""

    def __init__(self, folder: str) -> None:
        self.folder = pathlib.Path(folder)
        text = (self.folder / "manifest.json").read_text(encoding="utf-8")
        self.manifest = json.loads(text, object_hook=lambda keys: types.SimpleNamespace(**keys))

    def artifact(self, formats: Sequence[str], precision: str) -> Artifact:
        """Raises BundleError."""
        from models.artifacts import choose

        return choose(self.manifest.artifacts, formats, precision, self.folder)

    def path(self, artifact: Artifact) -> pathlib.Path:
        return self.folder / artifact.file


def main(channel_file: int, tensors_file: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    os.nice(5)  # as service.machine.priority does in the parent, whose event loop comes first
    channel = socket.socket(fileno=channel_file).makefile("rw")

    def answer(**fields: object) -> None:
        channel.write(json.dumps(fields) + "\n")
        channel.flush()

    order = channel.readline()
    if not order:
        return
    try:
        engine = open_engine(json.loads(order))
    except Exception as error:  # noqa: BLE001  # a runtime may raise anything; the parent makes an error of it
        answer(error=type(error).__name__, text=str(error))
        return
    tensors = SharedTensors(tensors_file, engine.input_size, engine.num_classes)
    answer(**{name: getattr(engine, name) for name in ("name", "precision", "device", "input_size", "num_classes")})
    for line in channel:
        try:
            infer(engine, *tensors.views(json.loads(line)["images"]))
        except Exception as error:  # noqa: BLE001  # as above
            answer(error=type(error).__name__, text=str(error))
        else:
            answer()
    engine.close()


def open_engine(order: dict[str, Any]) -> Any:
    """Raises what the engine's `open` raises, EngineUnavailable if it cannot be imported."""
    for name in ("models", "service", "service.engines", "service.engines.runtimes", "service.machine"):
        sys.modules[name] = _bare_package(name)
    from service.errors import EngineUnavailable

    module, _, class_name = order["engine"].partition(":")
    try:
        factory = getattr(import_module(module), class_name)
    except ImportError as error:
        raise EngineUnavailable(
            f"{module} cannot be imported by {sys.executable}: {error}; install it there"
        ) from error
    return factory.open(ParsedBundle(order["bundle"]), order["precision"], order["threads"], **order["options"])


def _bare_package(name: str) -> types.ModuleType:
    """Our package without its __init__, and not by sys.path, where the parent's packages may lie beside it."""
    package = types.ModuleType(name)
    package.__path__ = [str(ROOT.joinpath(*name.split(".")))]
    return package


def infer(engine: Any, images: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    """The engine reads `images` where they lie; its answer is copied into `logits`."""
    answered = engine.infer(images)
    if answered.shape != logits.shape:  # numpy would spread (1, K) over all rows
        raise ValueError(f"the engine answered {len(images)} images with shape {answered.shape}")
    logits[...] = answered


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
