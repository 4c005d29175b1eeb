"""An opened model of any runtime, and the table of model files that can be opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import ConfigError, DataError, DeviceError

# Suffix of the model -> module, imported when it is needed, and the extra that installs its runtime.
ENGINES = {
    ".mindir": ("training.deploy.offline.mindir_engine", "train"),
    ".onnx": ("training.deploy.offline.onnx_engine", "onnx"),
}


@dataclass(frozen=True)
class Engine:
    """An opened model: `infer` turns float32 (N, 3, S, S) into float32 logits (N, K).

    `batch` and `side` are the N and S that the model requires, or None if it takes any.
    """

    name: str
    batch: int | None
    side: int | None
    infer: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def open_engine(model: Path, target: str, device_id: int) -> Engine:
    """Raises DataError or ConfigError if the file is not a model, DeviceError if its runtime or device is missing."""
    if model.suffix not in ENGINES:
        raise ConfigError(f"--model {model} must end in {' or '.join(ENGINES)}")
    if not model.is_file():
        raise DataError(f"--model {model} does not exist")
    module, extra = ENGINES[model.suffix]
    try:
        opened: Engine = import_module(module).open_engine(model, target, device_id)
    except ImportError as error:
        raise DeviceError(
            f"no runtime for {model.name} ({error}); install it: pip install 'repvgg[{extra}]'"
        ) from error
    return opened


def batch_and_side(model: Path, inputs: Sequence[Sequence[object]]) -> tuple[int | None, int | None]:
    """The N and S that a model requires, from the shapes of its inputs, where a name or -1 means any size.

    Raises DataError unless the model has one input (N, 3, S, S).
    """
    if len(inputs) != 1 or len(inputs[0]) != 4:
        raise DataError(f"{model} takes {[list(shape) for shape in inputs]}, not one tensor (N, 3, S, S)")
    batch, _, side, _ = (size if isinstance(size, int) and size > 0 else None for size in inputs[0])
    return batch, side
