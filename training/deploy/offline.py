"""What the steps of offline inference share: their files, and what an engine is.

preprocess writes the first two, infer the third, postprocess counts.

<result_path>/img_data/<name>.bin     float32 (3, S, S), as the network takes it
<result_path>/label/label.json        {"num_classes": K, "labels": {"<name>": class id, ...}}
<results>/<name>_0.bin                float32 (K,) logits; _0 is the network's first output

All numbers are little-endian and without a header. The folders' names and the _0 are those of the Model Zoo's flow for
Ascend 310 (github.com/mindspore-ai/models: the scripts and ascend310_infer/ of research/cv).

1. a folder is written whole or not at all, and never into an old one;
2. a missing file and one of a wrong size are DataErrors that name it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.atomic import drafted
from training.errors import DataError, TrainingError
from training.files import read_whole

IMAGES, LABELS = Path("img_data"), Path("label") / "label.json"
SUFFIX, RESULT_SUFFIX = ".bin", "_0.bin"
FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True)
class Engine:
    """An opened model: `infer` turns float32 (N, 3, S, S) into float32 logits (N, K).

    `batch` and `side` are the N and S for which the model was made; None is any.
    """

    name: str
    batch: int | None
    side: int | None
    infer: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def batch_and_side(model: Path, inputs: Sequence[Sequence[object]]) -> tuple[int | None, int | None]:
    """N and S of a model's input, of the shapes of all its inputs; a name or -1 stands for any. Raises DataError."""
    if len(inputs) != 1 or len(inputs[0]) != 4:
        raise DataError(f"{model} takes {[list(shape) for shape in inputs]}, not one tensor (N, 3, S, S)")
    batch, _, side, _ = (size if isinstance(size, int) and size > 0 else None for size in inputs[0])
    return batch, side


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A draft that becomes `path` when the block ends without an error. Raises TrainingError if `path` exists."""
    if path.exists():
        raise TrainingError(f"{path} exists: remove it or name another folder, so that old and new files never mix")
    try:
        with drafted(path) as draft:
            yield draft
            draft.chmod(0o755)
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error}") from error


def read_floats(path: Path) -> NDArray[np.float32]:
    """A file's numbers, (N,). Raises DataError."""
    raw = read_whole(path)
    if not raw or len(raw) % FLOAT32.itemsize:
        raise DataError(f"{path} has {len(raw)} bytes, which is no whole number of float32")
    return np.frombuffer(raw, FLOAT32)


def write_floats(path: Path, numbers: NDArray[np.float32]) -> None:
    path.write_bytes(np.ascontiguousarray(numbers, FLOAT32).tobytes())


def write_labels(path: Path, num_classes: int, labels: Mapping[str, int]) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"num_classes": num_classes, "labels": labels}, indent=0) + "\n", encoding="utf-8")


def read_labels(path: Path) -> tuple[int, dict[str, int]]:
    """-> number of classes, class id by name. Raises DataError."""
    try:
        found = json.loads(read_whole(path))
        num_classes, labels = int(found["num_classes"]), {name: int(label) for name, label in found["labels"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is no label file of training.preprocess: {error!r}") from error
    if not labels or not all(0 <= label < num_classes for label in labels.values()):
        raise DataError(f"{path} must hold at least one label, each in 0..{num_classes - 1}")
    return num_classes, labels
