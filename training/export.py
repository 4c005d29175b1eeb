"""python -m training.export --config RECIPE --pretrained CKPT: fuse the network and export it.

With --bundle FOLDER it becomes a model bundle with ONNX, MINDIR, labels and the accuracy on the val split. Without, it
becomes a file <arch>.<format> in --output_dir for each format of --file_format, and no data set is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from training.config import TrainConfig, parse
from training.errors import ConfigError, reporting_errors
from training.run import device

FORMATS = ("MINDIR", "ONNX", "AIR")


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    config, recipe, flags = parse(
        argv,
        prog="python -m training.export",
        description=__doc__,
        bundle={
            "type": Path,
            "metavar": "FOLDER",
            "help": "new folder STORE/NAME/VERSION; its last two parts become the bundle's name and version",
        },
        file_format={
            "nargs": "+",
            "choices": FORMATS,
            "help": "one or more, such as --file_format MINDIR ONNX [default without --bundle: MINDIR]",
        },
        output_dir={
            "type": Path,
            "default": Path(),
            "metavar": "FOLDER",
            "help": "where the files of --file_format go; an older file is replaced [default: the current folder]",
        },
        golden={
            "type": Path,
            "metavar": "FOLDER",
            "help": "images whose logits every export must reproduce [default: the drawn samples]",
        },
    )
    formats = flags.file_format or ["MINDIR"]
    if config.pretrained is None:
        raise ConfigError("--pretrained FILE.ckpt is missing: which checkpoint shall be exported?")
    if flags.bundle and flags.file_format:
        raise ConfigError(
            "--bundle writes ONNX and MINDIR into one folder, --file_format single files: give one of them"
        )
    if "AIR" in formats and config.device_target != "Ascend":
        raise ConfigError(
            f"AIR can be written by Ascend only, device_target is {config.device_target}: export ONNX or MINDIR here"
        )
    print(device.prepare(config.device_target, config.device_id))
    if flags.bundle:
        _write_bundle(config, config.pretrained, flags.bundle, flags.golden, recipe)
    else:
        _write_files(config, config.pretrained, formats, flags.output_dir, flags.golden)
    return 0


def _write_bundle(
    config: TrainConfig, pretrained: Path, folder: Path, golden: Path | None, recipe: Path | None
) -> None:
    from training.deploy.bundle import write

    bundle = write(config, pretrained, folder, golden=golden, recipe=recipe)
    trained = bundle.manifest.training
    print(f"{bundle.folder}: top-1 {trained.top1:.2%}, top-5 {trained.top5:.2%} on {trained.evaluated_on}")
    for artifact in bundle.manifest.artifacts:
        size = (bundle.folder / artifact.file).stat().st_size
        print(f"  {artifact.format} {artifact.precision}: {artifact.file}, {size / 1e6:.2f} MB")


def _write_files(
    config: TrainConfig, pretrained: Path, formats: Sequence[str], folder: Path, golden: Path | None
) -> None:
    from training.deploy.bundle import write_files

    for path in write_files(config, pretrained, formats, folder, golden=golden):
        print(f"{path}: {config.arch}, fused, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    sys.exit(main())
