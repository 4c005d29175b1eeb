"""python -m training.quantize --bundle BUNDLE --calibration FOLDER --data FOLDER --out NEW: precisions below fp32.

The new bundle contains the old one, int8 as ONNX (QDQ, calibrated on training images), fp16 as ONNX, and the accuracy
that each precision loses. bf16 needs no file: engines compute the fp32 network in bf16.

1. each precision is evaluated on every image of --data, with the same pixels as in the service;
2. a precision that loses more top-1 than --max_top1_drop is rejected and nothing is written; with --force it is
   written, and the manifest records the loss, so that `--precision auto` never selects it;
3. the old bundle is not changed;
4. fast pixels are measured on large photos, and rejected in the same way.

Needs ONNX Runtime, but not MindSpore.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.deploy.precisions import CALIBRATIONS
from training.deploy.quantization import Options, quantize
from training.errors import Parser, reporting_errors


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    options = Options(
        precisions=flags.precisions,
        calibration=flags.calibration,
        calibration_images=flags.images,
        calibration_method=flags.calibrate,
        data=flags.data,
        fast_pixels=flags.fast_pixels,
        max_top1_drop=flags.max_top1_drop,
        force=flags.force,
    )
    written = quantize(flags.bundle, flags.out, options, report=print)
    kinds = ", ".join(f"{artifact.format} {artifact.precision}" for artifact in written.manifest.artifacts)
    print(f"{written.folder}: {kinds}; golden tolerances: {written.manifest.golden.tolerance}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m training.quantize", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_folder_flags(parser)
    _add_method_flags(parser)
    return parser


def _add_folder_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", required=True, metavar="BUNDLE", help="a folder, or name[/version] in the store")
    parser.add_argument(
        "--calibration", type=Path, required=True, metavar="FOLDER", help="training images, at any depth"
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="FOLDER/<class>/*: images to evaluate on"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="new folder STORE/NAME/VERSION for the bundle"
    )
    parser.add_argument(
        "--fast_pixels", type=Path, metavar="FOLDER", help="FOLDER/<class>/*: large photos to measure fast pixels on"
    )


def _add_method_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("int8", "bf16", "fp16"),
        default=["int8", "bf16"],
        metavar="PRECISION",
        help="one or more of int8, bf16, fp16 [default: int8 bf16]",
    )
    parser.add_argument(
        "--images", type=int, default=512, metavar="N", help="number of calibration images [default: 512]"
    )
    parser.add_argument(
        "--calibrate",
        choices=list(CALIBRATIONS),
        default="percentile",
        help="how int8 chooses the range of activations: minmax covers all values, percentile 99.999 %% of them "
        "[the default], entropy minimises the lost information",
    )
    parser.add_argument(
        "--max_top1_drop",
        type=float,
        default=0.005,
        metavar="F",
        help="largest acceptable loss of top-1, as a fraction of the images [default: 0.005]",
    )
    parser.add_argument("--force", action="store_true", help="write the bundle whatever the loss")


if __name__ == "__main__":
    sys.exit(main())
