"""Input files -> a file of logits for each, as the Model Zoo's C++ program for Ascend 310 does.

1. every input file gets its result, including those of an incomplete last batch;
2. an error names the file whose size does not fit the model, and then no results are written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.deploy.offline.engine import Engine
from training.deploy.offline.files import RESULT_SUFFIX, SUFFIX, new_folder, read_floats, write_floats
from training.errors import DataError, TrainingError


def find_inputs(folder: Path) -> list[Path]:
    """The input files in `folder`, in order of their names. Raises DataError if there are none."""
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        raise DataError(f"{folder} holds no *{SUFFIX} files: use the img_data/ written by training.preprocess")
    return paths


def infer_files(engine: Engine, paths: Sequence[Path], folder: Path, batch_size: int) -> float:
    """Write a result for each input file into the new `folder` -> seconds spent in the engine after its warm-up.

    The last batch is padded with zeros, because engines compile for the shape of a batch. Raises TrainingError.
    """
    side = _image_side(paths[0], engine)
    batch = np.zeros((batch_size, 3, side, side), np.float32)
    try:
        engine.infer(batch)  # compiles, and fails early if the batch size does not fit
    except RuntimeError as error:
        raise TrainingError(f"{engine.name} cannot run a batch of {batch_size}, try --batch_size 1: {error}") from error
    seconds = 0.0
    with new_folder(folder) as draft, tqdm(total=len(paths), unit="image", leave=False, disable=None) as bar:
        for start in range(0, len(paths), batch_size):
            chunk = paths[start : start + batch_size]
            _fill(batch, chunk, side)
            began = time.perf_counter()
            logits = engine.infer(batch)
            seconds += time.perf_counter() - began
            for path, row in zip(chunk, logits, strict=False):
                write_floats(draft / f"{path.stem}{RESULT_SUFFIX}", row)
            bar.update(len(chunk))
    return seconds


def _fill(batch: NDArray[np.float32], paths: Sequence[Path], side: int) -> None:
    batch[len(paths) :] = 0
    for row, path in enumerate(paths):
        batch[row] = _read_image(path, side)


def _image_side(path: Path, engine: Engine) -> int:
    """Height and width of the image in an input file. Raises DataError if the engine does not take that size."""
    numbers = len(read_floats(path))
    side = math.isqrt(numbers // 3)
    if 3 * side * side != numbers:
        raise DataError(f"{path} holds {numbers} numbers, which is not a square image with 3 channels")
    if engine.side not in (None, side):
        raise DataError(
            f"{path} has {side} x {side} pixels, but the model takes {engine.side} x {engine.side}: "
            "run training.preprocess with the recipe of the model"
        )
    return side


def _read_image(path: Path, side: int) -> NDArray[np.float32]:
    """-> float32 (3, side, side). Raises DataError."""
    numbers = read_floats(path)
    if len(numbers) != 3 * side * side:
        raise DataError(f"{path} holds {len(numbers)} numbers, but the files before it hold {3 * side * side}")
    return numbers.reshape(3, side, side)
