"""python -m training.infer --model FILE.mindir|FILE.onnx --input_path img_data --result_path FOLDER: .bin -> logits.

What the Model Zoo's C++ program for Ascend 310 does; training.deploy.offline says what lies where.

1. each file of the input gets its result, the last batch too;
2. a file of another size than the model takes is named, and then there are no results.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.deploy.offline import RESULT_SUFFIX, SUFFIX, Engine, new_folder, read_floats, write_floats
from training.errors import ConfigError, DataError, DeviceError, TrainingError, reporting_errors

# Suffix of the model -> module, imported late, and what installs its runtime.
ENGINES = {
    ".mindir": ("training.deploy.mindir_engine", "train"),
    ".onnx": ("training.deploy.onnx_engine", "onnx"),
}


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    if flags.batch_size < 1:
        raise ConfigError(f"--batch_size {flags.batch_size}: infer at least 1 image at once")
    paths = sorted(flags.input_path.glob(f"*{SUFFIX}"))
    if not paths:
        raise DataError(f"{flags.input_path} holds no *{SUFFIX}: give the img_data/ that training.preprocess wrote")
    engine = open_engine(flags.model, flags.device_target, flags.device_id)
    batch_size = engine.batch or flags.batch_size
    print(engine.name)
    seconds = run(engine, paths, flags.result_path, batch_size)
    speed = len(paths) / seconds
    print(f"{flags.result_path}: {len(paths)} results, {speed:.1f} images/s of the network alone, batch {batch_size}")
    return 0


def open_engine(model: Path, target: str, device_id: int) -> Engine:
    """Raises DataError or ConfigError for a file that is no model, DeviceError where runtime or device is missing."""
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


def run(engine: Engine, paths: Sequence[Path], folder: Path, batch_size: int) -> float:
    """Write a result for each of `paths` into the new `folder` -> seconds that the engine took, its start apart.

    The last batch is filled up with zeros: every batch has the same shape, for which engines compile.
    Raises TrainingError.
    """
    side = _side(paths[0], engine)
    batch = np.zeros((batch_size, 3, side, side), np.float32)
    try:
        engine.infer(batch)  # compiles, and tells early what does not fit
    except RuntimeError as error:
        raise TrainingError(f"{engine.name} takes no batch of {batch_size}, try --batch_size 1: {error}") from error
    seconds = 0.0
    with new_folder(folder) as draft, tqdm(total=len(paths), unit="image", leave=False, disable=None) as bar:
        for start in range(0, len(paths), batch_size):
            chunk = paths[start : start + batch_size]
            batch[len(chunk) :] = 0
            for row, path in enumerate(chunk):
                batch[row] = _tensor(path, side)
            began = time.perf_counter()
            logits = engine.infer(batch)
            seconds += time.perf_counter() - began
            for path, row_logits in zip(chunk, logits, strict=False):
                write_floats(draft / f"{path.stem}{RESULT_SUFFIX}", row_logits)
            bar.update(len(chunk))
    return seconds


def _side(path: Path, engine: Engine) -> int:
    """Height and width of the image in a file. Raises DataError for one that the engine does not take."""
    numbers = len(read_floats(path))
    side = math.isqrt(numbers // 3)
    if 3 * side * side != numbers:
        raise DataError(f"{path} holds {numbers} numbers: no square image of 3 channels")
    if engine.side not in (None, side):
        raise DataError(
            f"{path} has {side} x {side} pixels, the model takes {engine.side} x {engine.side}: "
            "give training.preprocess the recipe of the model"
        )
    return side


def _tensor(path: Path, side: int) -> NDArray[np.float32]:
    """-> float32 (3, side, side)."""
    numbers = read_floats(path)
    if len(numbers) != 3 * side * side:
        raise DataError(f"{path} holds {len(numbers)} numbers, the files before it {3 * side * side}")
    return numbers.reshape(3, side, side)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.infer", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="FILE",
        help=".onnx for ONNX Runtime; .mindir for MindSpore Lite on Ascend, MindSpore elsewhere",
    )
    parser.add_argument(
        "--input_path", type=Path, required=True, metavar="FOLDER", help="the img_data/ that training.preprocess wrote"
    )
    parser.add_argument("--result_path", type=Path, required=True, metavar="FOLDER", help="new folder for the results")
    parser.add_argument("--device_target", default="Ascend", choices=("Ascend", "GPU", "CPU"), help="[default: Ascend]")
    parser.add_argument("--device_id", type=int, default=0, metavar="N", help="[default: 0]")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=32,
        metavar="N",
        help="images at once, for a model that leaves the choice [default: 32]",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
