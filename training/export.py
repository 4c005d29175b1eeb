"""python -m training.export --config RECIPE --pretrained CKPT: fuse the network and export it.

With --bundle FOLDER, writes a model bundle with ONNX, MINDIR, labels and the accuracy on the val split. Without it,
writes a file <arch>.<format> into --output_dir for each format in --file_format; this needs no data set, and
--pretrained may be a bundle too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.config import TrainConfig, parse
from training.errors import ConfigError, reporting_errors
from training.run.distributed import device

FORMATS = ("MINDIR", "ONNX", "AIR")

FLAGS: dict[str, dict[str, Any]] = {
    "bundle": {
        "type": Path,
        "metavar": "FOLDER",
        "help": "new folder STORE/NAME/VERSION; its last two parts become the bundle's name and version",
    },
    "file_format": {
        "nargs": "+",
        "choices": FORMATS,
        "help": "one or more, such as --file_format MINDIR ONNX [default without --bundle: MINDIR]",
    },
    "output_dir": {
        "type": Path,
        "default": Path(),
        "metavar": "FOLDER",
        "help": "folder for the files of --file_format; existing files are replaced [default: the current folder]",
    },
    "golden": {
        "type": Path,
        "metavar": "FOLDER",
        "help": "images on which every export must reproduce the network's logits [default: the drawn samples]",
    },
}


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    config, recipe, flags = parse(argv, prog="python -m training.export", description=__doc__, **FLAGS)
    pretrained, formats = _check(config, flags)
    print(device.prepare(config.device_target, config.device_id))
    if flags.bundle:
        _export_bundle(config, pretrained, flags.bundle, flags.golden, recipe)
    else:
        _export_files(config, pretrained, formats, flags.output_dir, flags.golden)
    return 0


def _check(config: TrainConfig, flags: argparse.Namespace) -> tuple[Path, list[str]]:
    """-> the checkpoint and the formats to export. Raises ConfigError."""
    formats = flags.file_format or ["MINDIR"]
    if config.pretrained is None:
        raise ConfigError("--pretrained FILE.ckpt is missing: which checkpoint should be exported?")
    if flags.bundle and config.pretrained.is_dir():
        raise ConfigError(
            f"--bundle needs a checkpoint, and --pretrained {config.pretrained} is a folder: give --file_format instead"
        )
    if flags.bundle and flags.file_format:
        raise ConfigError(
            "--bundle writes ONNX and MINDIR into one folder, --file_format writes single files: use one of them"
        )
    if "AIR" in formats and config.device_target != "Ascend":
        raise ConfigError(
            f"AIR can only be exported on Ascend, but device_target is {config.device_target}: export ONNX or MINDIR"
        )
    return config.pretrained, formats


def _export_bundle(
    config: TrainConfig, pretrained: Path, folder: Path, golden: Path | None, recipe: Path | None
) -> None:
    from training.deploy.bundle import export_bundle

    bundle = export_bundle(config, pretrained, folder, golden=golden, recipe=recipe)
    trained = bundle.manifest.training
    print(f"{bundle.folder}: top-1 {trained.top1:.2%}, top-5 {trained.top5:.2%} on {trained.evaluated_on}")
    for artifact in bundle.manifest.artifacts:
        size = (bundle.folder / artifact.file).stat().st_size
        print(f"  {artifact.format} {artifact.precision}: {artifact.file}, {size / 1e6:.2f} MB")


def _export_files(
    config: TrainConfig, pretrained: Path, formats: Sequence[str], folder: Path, golden: Path | None
) -> None:
    from training.deploy.bundle import export_files

    for path in export_files(config, pretrained, formats, folder, golden=golden):
        print(f"{path}: {path.stem}, fused, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    sys.exit(main())
