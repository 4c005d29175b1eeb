"""python -m training.train --config training/recipes/NAME.yaml: train a RepVGG from an image folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from training import device, modelarts
from training.config import parse
from training.errors import reporting_errors


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    config, _, _ = parse(argv, prog="python -m training.train", description=__doc__)
    place = device.join(config.device_target, config.device_id)
    if place.leads:
        print(place.line)
    from training.loop import train  # MindSpore takes seconds to import: not for --help or a wrong flag

    best = train(config, place)
    if place.leads:
        print(f"best checkpoint: {best}")
        if config.train_url:
            modelarts.keep_run(config.run_dir, config.train_url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
