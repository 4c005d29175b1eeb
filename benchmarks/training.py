"""images/s of the training step alone, of the data pipeline alone, and of both: what does feeding cost?

python -m benchmarks.training --config RECIPE --data_url DATA --device_target CPU [--steps N] [--repeats N]

One run measures all three in turn, several times, and reports medians and their ratios: on a shared machine absolute
figures of two runs cannot be compared. The aim: with the pipeline, a step takes at most 5 % longer than alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from statistics import median

from training.config import TrainConfig, parse
from training.errors import reporting_errors
from training.run import device


def measure(config: TrainConfig, steps: int, repeats: int) -> str:
    """Raises TrainingError, as a run would."""
    from training.data.pipeline import open_split, steps_per_epoch, train_batches
    from training.run.assembly import assemble

    images = open_split(config, "train")
    steps = min(steps, steps_per_epoch(images, config))
    run = assemble(config, steps)
    run.network.set_train(True)
    first = next(iter(train_batches(images, config, 0)))

    def step(batch: dict[str, object]) -> None:
        loss, _ = run.step(batch["image"], batch["label"])
        loss.asnumpy()  # waits for it, as the run does

    def step_alone(_: int) -> None:
        for _ in range(steps):
            step(first)

    def pipeline_alone(epoch: int) -> None:
        for _ in islice(train_batches(images, config, epoch), steps):
            pass

    def both(epoch: int) -> None:
        for batch in islice(train_batches(images, config, epoch), steps):
            step(batch)

    began = time.perf_counter()
    step(first)
    compiled_s = time.perf_counter() - began
    kinds: dict[str, Callable[[int], None]] = {"step": step_alone, "pipeline": pipeline_alone, "both": both}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for epoch in range(repeats):
        for kind, work in kinds.items():
            began = time.perf_counter()
            work(epoch)
            seconds[kind].append(time.perf_counter() - began)
    lines = [
        f"{config.arch}, batch {config.batch_size}, {steps} steps, {repeats} repeats; first step {compiled_s:.1f} s"
    ]
    for kind, times in seconds.items():
        speeds = sorted(steps * config.batch_size / taken for taken in times)
        lines.append(f"{kind:>8}: {median(speeds):8.1f} images/s (from {speeds[0]:.1f} to {speeds[-1]:.1f})")
    feeding = median(both / step - 1 for both, step in zip(seconds["both"], seconds["step"], strict=True))
    return "\n".join([*lines, f"feeding costs {feeding:+.1%} of a step (median of {repeats} pairs; aim: 5 % at most)"])


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    config, _, flags = parse(
        argv,
        prog="python -m benchmarks.training",
        description="Measure the training step alone, the data pipeline alone, and both.",
        steps={"type": int, "default": 20, "metavar": "N", "help": "batches of each measurement [default: 20]"},
        repeats={"type": int, "default": 5, "metavar": "N", "help": "measurements of each kind [default: 5]"},
    )
    print(device.prepare(config.device_target, config.device_id))
    print(measure(config, flags.steps, flags.repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
