"""The program in the engine's own process. The parent starts it by its path, with any Python from 3.7 on.

1. it needs numpy and the engine's runtime, nothing else: this file, the engine files and what they import at run time
   keep to Python 3.7;
2. it ends when its parent does, even in the middle of a batch or while it opens the engine;
3. SIGTERM and SIGINT, which a whole process group may receive, do not end it, not even while it imports: closing the
   channel does;
4. an error of the engine is an answer, and the next batch is taken.
"""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import signal
import socket
import sys
import types
from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # First of all: imports take a while, and the parent may end or a group be sent SIGTERM meanwhile.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of linux/prctl.h
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if os.getppid() != int(sys.argv[3]):  # the parent has ended already
        sys.exit(1)
    sys.path.pop(0)  # the folder of this file
    # Our packages without their __init__, which needs more than numpy, and not found by sys.path, where the packages of
    # the parent's Python may be next to them.
    for name in (
        *("models", "service", "service.machine"),
        *("service.engines", "service.engines.hosted", "service.engines.runtimes"),
    ):
        sys.modules[name] = package = types.ModuleType(name)
        package.__path__ = [str(pathlib.Path(__file__).resolve().parents[3].joinpath(*name.split(".")))]

import numpy as np

from service.engines.hosted.protocol import ENGINE_FACTS, Channel, SharedTensors, error_fields
from service.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.manifest import Artifact


class ParsedBundle:
    """A bundle that the parent has verified, read without the code that verifies. To an engine both look the same."""

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
    os.nice(5)  # as service.machine.priority does in the parent, whose event loop comes first
    channel = Channel(socket.socket(fileno=channel_file))
    order = channel.receive()
    if order is None:
        return
    try:
        engine = open_engine(order)
    except Exception as error:  # noqa: BLE001  # a runtime may raise anything; the parent raises it
        channel.send(**error_fields(error))
        return
    channel.send(**{name: getattr(engine, name) for name in ENGINE_FACTS})
    answer_batches(engine, channel, SharedTensors(tensors_file, engine.input_size, engine.num_classes))
    engine.close()


def open_engine(order: dict[str, Any]) -> Any:
    """Raises what the engine's `open` raises, EngineUnavailable if it cannot be imported."""
    module, _, class_name = order["engine"].partition(":")
    try:
        factory = getattr(import_module(module), class_name)
    except ImportError as error:
        raise EngineUnavailable(
            f"{module} cannot be imported by {sys.executable}: {error}; install it there"
        ) from error
    return factory.open(ParsedBundle(order["bundle"]), order["precision"], order["threads"], **order["options"])


def answer_batches(engine: Any, channel: Channel, tensors: SharedTensors) -> None:
    """Until the parent closes the channel."""
    question = channel.receive()
    while question is not None:
        try:
            infer(engine, *tensors.views(question["images"]))
        except Exception as error:  # noqa: BLE001  # as above
            channel.send(**error_fields(error))
        else:
            channel.send()
        question = channel.receive()


def infer(engine: Any, images: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    """The engine reads `images` in place; its answer is copied into `logits`."""
    answered = engine.infer(images)
    if answered.shape != logits.shape:  # numpy would broadcast (1, K) to all rows
        raise ValueError(f"the engine answered {len(images)} images with shape {answered.shape}")
    logits[...] = answered


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
