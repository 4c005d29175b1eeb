"""python -m training.export --config RECIPE --pretrained CKPT --bundle FOLDER: fuse, export, write a model bundle."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from training import device
from training.config import parse
from training.errors import ConfigError, reporting_errors


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    config, recipe, flags = parse(
        argv,
        prog="python -m training.export",
        description=__doc__,
        bundle={
            "type": Path,
            "required": True,
            "metavar": "FOLDER",
            "help": "new folder STORE/NAME/VERSION; its last two parts become the bundle's name and version",
        },
        golden={
            "type": Path,
            "metavar": "FOLDER",
            "help": "images whose logits every serving engine must reproduce [default: the drawn samples]",
        },
    )
    if config.pretrained is None:
        raise ConfigError("--pretrained FILE.ckpt is missing: which checkpoint shall be exported?")
    print(device.prepare(config.device_target, config.device_id))
    from training.bundle import write

    bundle = write(config, config.pretrained, flags.bundle, golden=flags.golden, recipe=recipe)
    trained = bundle.manifest.training
    print(f"{bundle.folder}: top-1 {trained.top1:.2%}, top-5 {trained.top5:.2%} on {trained.evaluated_on}")
    for artifact in bundle.manifest.artifacts:
        size = (bundle.folder / artifact.file).stat().st_size
        print(f"  {artifact.format} {artifact.precision}: {artifact.file}, {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
