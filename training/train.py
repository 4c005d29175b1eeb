"""python -m training.train --config training/recipes/NAME.yaml: train a RepVGG on a folder of images."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from training.config import parse
from training.data import bundles
from training.errors import reporting_errors
from training.run.distributed import device
from training.storage import modelarts

FLAGS = {"dry-run": {"action": "store_true", "help": "run two steps, write nothing, and estimate the cost of the run"}}


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    config, _, flags = parse(argv, prog="python -m training.train", description=__doc__, **FLAGS)
    config, told = bundles.follow(config)
    process = device.init_process(config.device_target, config.device_id)
    if process.is_main:
        print("\n".join([process.description, *told]))
    from training.run.dry_run import estimate  # MindSpore takes seconds to import: not for --help or a wrong flag
    from training.run.loop import train

    result = estimate(config, process) if flags.dry_run else f"best checkpoint: {train(config, process=process)}"
    if process.is_main:
        print(result)
        if config.train_url and not flags.dry_run:
            modelarts.keep_run(config.run_dir, config.train_url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
