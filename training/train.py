"""python -m training.train --config training/recipes/NAME.yaml: train a RepVGG from an image folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from training.config import parse
from training.data import modelarts
from training.errors import reporting_errors
from training.run import device


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    config, _, flags = parse(
        argv,
        prog="python -m training.train",
        description=__doc__,
        **{"dry-run": {"action": "store_true", "help": "do two steps, write nothing, say what the run would cost"}},
    )
    place = device.join(config.device_target, config.device_id)
    if place.leads:
        print(place.line)
    from training.run.dry_run import rehearse  # MindSpore takes seconds to import: not for --help or a wrong flag
    from training.run.loop import train

    said = rehearse(config, place) if flags.dry_run else f"best checkpoint: {train(config, place=place)}"
    if place.leads:
        print(said)
        if config.train_url and not flags.dry_run:
            modelarts.keep_run(config.run_dir, config.train_url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
