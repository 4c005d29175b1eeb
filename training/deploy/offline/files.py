"""The files that the steps of offline inference exchange.

`preprocess` writes the first two, `infer` the third, and `postprocess` reads the last two.

<result_path>/img_data/<name>.bin     float32 (3, S, S), the input of the network
<result_path>/label/label.json        {"num_classes": K, "labels": {"<name>": class id, ...}}
<results>/<name>_0.bin                float32 (K,) logits; _0 is the network's first output

All numbers are little-endian, without a header. The names of the folders and the _0 come from the Model Zoo's flow for
Ascend 310 (github.com/mindspore-ai/models: the scripts and ascend310_infer/ in research/cv).

1. a folder is written completely or not at all, and never into an existing one;
2. a missing file or one of the wrong size is a DataError that names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.atomic import drafted
from training.errors import DataError, TrainingError
from training.storage.files import read_whole

IMAGES, LABELS = Path("img_data"), Path("label") / "label.json"
SUFFIX, RESULT_SUFFIX = ".bin", "_0.bin"
FLOAT32 = np.dtype("<f4")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends without an error.

    Raises TrainingError if `path` exists or cannot be written.
    """
    if path.exists():
        raise TrainingError(f"{path} exists: remove it or choose another folder, so that old and new files never mix")
    try:
        with drafted(path) as draft:
            yield draft
            draft.chmod(0o755)
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error}") from error


def read_floats(path: Path) -> NDArray[np.float32]:
    """The numbers in a file, (N,). Raises DataError."""
    raw = read_whole(path)
    if not raw or len(raw) % FLOAT32.itemsize:
        raise DataError(f"{path} has {len(raw)} bytes, which is not a whole number of float32 values")
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
        raise DataError(f"{path} is not a label file written by training.preprocess: {error!r}") from error
    if not labels or not all(0 <= label < num_classes for label in labels.values()):
        raise DataError(f"{path} must hold at least one label, each in 0..{num_classes - 1}")
    return num_classes, labels
