"""python -m training.schedules --config RECIPE --plot FILE.png: draw the learning rate of a recipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from training.config import parse
from training.errors import ConfigError, reporting_errors
from training.optim.learning_rate import learning_rates


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    config, _, flags = parse(
        argv,
        prog="python -m training.schedules",
        description="Draw the learning rate of a recipe.",
        plot={"type": Path, "required": True, "metavar": "FILE.png", "help": "file to write"},
        steps_per_epoch={"type": int, "default": 100, "metavar": "N", "help": "batches per epoch [default: 100]"},
    )
    from models import charts
    from training.run.record.curves import Chart, draw, save

    if not charts.is_installed():
        raise ConfigError(charts.NOT_INSTALLED)
    steps = max(1, flags.steps_per_epoch)
    curve = learning_rates(config, steps)
    points = [(update * config.accumulate_steps / steps, rate) for update, rate in enumerate(curve)]
    chart = Chart("Learning rate", "learning rate", {config.lr_scheduler: points})
    save(draw(f"{config.lr_scheduler}, {config.arch}", "epoch", [chart]), flags.plot)
    print(f"{flags.plot}: {len(curve)} updates, from {curve[0]:.3g} up to {max(curve):.3g}, then to {curve[-1]:.3g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
