"""python -m training.lite --bundle BUNDLE --out NEW_BUNDLE --lite-python PYTHON: add a model for MindSpore Lite.

1. the bundle is not changed: a new bundle gets all of its content and the new artifact;
2. an artifact for the CPU is only written if it reproduces the golden logits;
3. an artifact compiled for an Ascend device cannot run here: the service's golden check tests it on that device.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from models.errors import BundleError
from models.store import open_bundle
from training.deploy.lite import TARGETS, add_artifact
from training.errors import ConfigError, DataError, Parser, reporting_errors


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    target = TARGETS[flags.target]
    if target.soc and not flags.batch:
        raise ConfigError(
            f"--target {flags.target} is compiled for fixed batch sizes: give them, such as --batch 1,4,8"
        )
    try:
        bundle = open_bundle(flags.bundle)
        written, lite_version = add_artifact(bundle, flags.out, flags.lite_python, target, flags.batch)
    except BundleError as error:
        raise DataError(str(error)) from error
    artifact = written.manifest.artifacts[-1]
    kind = f"{artifact.format} {artifact.precision}"
    print(f"{written.folder}: {kind} by MindSpore Lite {lite_version}, {artifact.file}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m training.lite", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--bundle", required=True, metavar="BUNDLE", help="a folder, or name[/version] in the store")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="new folder STORE/NAME/VERSION")
    parser.add_argument(
        "--lite-python", required=True, type=Path, metavar="PYTHON", help="a Python interpreter with mindspore_lite"
    )
    parser.add_argument(
        "--target",
        choices=TARGETS,
        default="cpu",
        help="device to convert for [default: cpu, a model that any device can load]",
    )
    parser.add_argument(
        "--batch",
        type=_batch_sizes,
        default=[],
        metavar="1,4,8",
        help="batch sizes of the artifact [default: any; required for Ascend]",
    )
    return parser


def _batch_sizes(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9][0-9]*(,[1-9][0-9]*)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of positive integers such as 1,4,8")
    return sorted({int(size) for size in text.split(",")})


if __name__ == "__main__":
    sys.exit(main())
