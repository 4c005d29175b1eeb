"""images/s of the training step alone, of the data pipeline alone, and of both: what does feeding cost?

python -m benchmarks.training --config RECIPE --data_url DATA --device_target CPU [--steps N] [--repeats N]

One run measures all kinds in turn, several times, and reports medians and their ratios: on a shared machine absolute
figures of two runs cannot be compared. The share of feeding is also given in CPU time, which busy neighbours change
least. The aim: feeding costs at most 5 % of a step.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING

from training.config import TrainConfig, parse
from training.errors import reporting_errors
from training.run.distributed import device

if TYPE_CHECKING:
    from training.run.assembly import Run

STEP, PIPELINE, KEPT, BOTH = "step", "pipeline", "kept", "both"


@dataclass
class Times:
    """Of each measurement of one kind: seconds that passed, and seconds of CPU time of all threads."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    @contextmanager
    def measured(self) -> Iterator[None]:
        began, began_cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s.append(time.perf_counter() - began)
        self.cpu_s.append(time.process_time() - began_cpu)


def measure(config: TrainConfig, steps: int, repeats: int) -> str:
    """Raises TrainingError, as a run would."""
    from training.data.pipeline import open_split, steps_per_epoch, train_batches
    from training.run.assembly import assemble

    config = config.model_copy(update={"image_sizes": None})  # every measurement at image_size
    images = open_split(config, "train")
    steps = min(steps, steps_per_epoch(images, config))
    run = assemble(config, steps)
    run.network.set_train(True)
    first = next(iter(train_batches(images, config, 0)))

    def batches(epoch: int) -> islice[dict[str, object]]:
        return islice(train_batches(images, config, epoch), steps)

    compilation, times = Times(), {kind: Times() for kind in (STEP, PIPELINE, KEPT, BOTH)}
    with compilation.measured():
        _train(run, [first])
    for epoch in range(1, 2 * repeats, 2):
        with times[STEP].measured():
            _train(run, [first] * steps)
        for kind in (PIPELINE, KEPT):  # the same images again
            with times[kind].measured():
                _drain(batches(epoch))
        with times[BOTH].measured():
            _train(run, batches(epoch + 1))
    setting = f"{config.arch}, batch {config.batch_size}, {steps} steps, {repeats} repeats"
    return f"{setting}; first step {compilation.wall_s[0]:.1f} s\n{report(times, steps * config.batch_size)}"


def _train(run: Run, batches: Iterable[dict[str, object]]) -> None:
    for batch in batches:
        loss, _ = run.step(batch["image"], batch["label"])
        loss.asnumpy()  # waits for it, as the run does


def _drain(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def report(times: Mapping[str, Times], images: int) -> str:
    """`images` were in each measurement."""
    lines = []
    for kind, found in times.items():
        speeds = sorted(images / wall_s for wall_s in found.wall_s)
        lines.append(f"{kind:>8}: {median(speeds):8.1f} images/s (from {speeds[0]:.1f} to {speeds[-1]:.1f})")
    cpu_ms = {kind: 1000 * median(found.cpu_s) / images for kind, found in times.items()}
    pairs = zip(times[BOTH].wall_s, times[STEP].wall_s, strict=True)
    feeding = median(both_s / step_s - 1 for both_s, step_s in pairs)
    return "\n".join(
        [
            *lines,
            f"CPU time per image: step {cpu_ms[STEP]:.3f} ms; feeding {cpu_ms[PIPELINE]:.3f} ms "
            f"({cpu_ms[PIPELINE] / cpu_ms[STEP]:.1%} of a step) where images are read and decoded, "
            f"{cpu_ms[KEPT]:.3f} ms ({cpu_ms[KEPT] / cpu_ms[STEP]:.1%}) where pixels are kept from an earlier epoch",
            f"feeding costs {feeding:+.1%} of a step (median of {len(times[BOTH].wall_s)} pairs; aim: 5 % at most)",
        ]
    )


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
