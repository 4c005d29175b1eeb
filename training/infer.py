"""python -m training.infer --model FILE.mindir|FILE.onnx --input_path img_data --result_path FOLDER: .bin -> logits.

Step 2 of offline inference, between training.preprocess and training.postprocess; training.deploy.offline.files
describes the files.

1. every input file gets its result, including those of an incomplete last batch;
2. an error names the file whose size does not fit the model, and then no results are written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.deploy.offline.engine import open_engine
from training.deploy.offline.inference import find_inputs, infer_files
from training.errors import ConfigError, Parser, reporting_errors


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    if flags.batch_size < 1:
        raise ConfigError(f"--batch_size {flags.batch_size} must be at least 1")
    paths = find_inputs(flags.input_path)
    engine = open_engine(flags.model, flags.device_target, flags.device_id)
    batch_size = engine.batch or flags.batch_size
    print(engine.name)
    seconds = infer_files(engine, paths, flags.result_path, batch_size)
    speed = len(paths) / seconds
    print(f"{flags.result_path}: {len(paths)} results, {speed:.1f} images/s of the network alone, batch {batch_size}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m training.infer", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="FILE",
        help=".onnx runs in ONNX Runtime; .mindir in MindSpore Lite on Ascend if it is installed, else in MindSpore",
    )
    parser.add_argument(
        "--input_path", type=Path, required=True, metavar="FOLDER", help="the img_data/ written by training.preprocess"
    )
    parser.add_argument("--result_path", type=Path, required=True, metavar="FOLDER", help="new folder for the results")
    parser.add_argument("--device_target", default="Ascend", choices=("Ascend", "GPU", "CPU"), help="[default: Ascend]")
    parser.add_argument("--device_id", type=int, default=0, metavar="N", help="[default: 0]")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=32,
        metavar="N",
        help="images per batch, if the model does not prescribe it [default: 32]",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
