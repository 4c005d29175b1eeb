"""`python -m training.train ... --dry-run`: estimates the cost of a run from real steps and writes nothing.

It runs two steps with each size of training images.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import mindspore as ms

from training.config import TrainConfig
from training.data.pipeline import Images, evaluation_batches, evaluation_spec, train_batches
from training.network import repvgg
from training.run.assembly import Run
from training.run.distributed.device import SINGLE_PROCESS, Process
from training.run.evaluation import evaluate
from training.run.start import start


@dataclass(frozen=True)
class Timing:
    """Duration of a call that compiles its graph, and of the same call again."""

    first_s: float
    second_s: float

    @property
    def compilation_s(self) -> float:
        return max(0.0, self.first_s - self.second_s)


def estimate(config: TrainConfig, process: Process = SINGLE_PROCESS) -> str:
    """Start the run, do its steps and evaluate one batch -> the estimated cost of the whole run, as lines of text.

    Raises TrainingError.
    """
    run, _, train_images, val_images = start(config, process)
    steps = {first: _time_step(run, train_images, first) for first in config.size_spans}
    read_s, evaluation = _time_evaluation(run, val_images)
    evaluation_s = math.ceil(len(val_images) / run.images_per_step) * (read_s + evaluation.second_s)
    return "\n".join(
        (
            *_durations(run, steps, evaluation.compilation_s, evaluation_s),
            f"checkpoints: last.ckpt {_megabytes(run.parameters):.1f} MB, "
            f"best.ckpt {_megabytes(repvgg.weights(run.result)):.1f} MB",
            f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB, "
            "not counting accelerator memory",
            "nothing was written",
        )
    )


def _durations(run: Run, steps: Mapping[int, Timing], compilation_s: float, evaluation_s: float) -> tuple[str, ...]:
    """`steps` by the first epoch of each image size; the seconds are those of one evaluation and its compilation."""
    config, compilation_s = run.config, compilation_s + sum(step.compilation_s for step in steps.values())
    evaluations = math.ceil(config.epochs / config.eval_interval)
    training_h = sum(run.steps * config.size_spans[first] * step.second_s for first, step in steps.items()) / 3600
    evaluation_h = evaluations * evaluation_s / 3600
    return (
        f"steps: {config.epochs * run.steps}, {config.epochs} epochs of {run.steps} with {run.images_per_step} images "
        "each",
        f"compilation: {compilation_s:.1f} s",
        *(_describe_step(run, first, step.second_s) for first, step in steps.items()),
        f"whole run: {compilation_s / 3600 + training_h + evaluation_h:.2f} h, of which {training_h:.2f} h training "
        f"and {evaluation_h:.2f} h in {evaluations} evaluations",
    )


def _describe_step(run: Run, first_epoch: int, seconds: float) -> str:
    size = f" with images of {run.config.at_epoch(first_epoch).image_size} pixels" if run.config.image_sizes else ""
    return (
        f"one step{size}: {seconds:.3f} s, {run.images_per_step / seconds:.0f} images/s, if the data pipeline keeps up "
        "(python -m training.data --measure)"
    )


def _time_step(run: Run, images: Images, epoch: int) -> Timing:
    """Time the first two steps of an epoch; both use the same batch if there is only one."""
    batches = list(islice(train_batches(images, run.config, epoch, **run.process.image_shard), 2))

    def step(batch: dict[str, Any]) -> None:
        run.step(batch["image"], batch["label"])[0].asnumpy()  # waits for the device

    run.network.set_train(True)
    return Timing(_seconds(lambda: step(batches[0])), _seconds(lambda: step(batches[-1])))


def _time_evaluation(run: Run, images: Images) -> tuple[float, Timing]:
    """-> seconds to read one batch, and the timing of evaluating it twice."""
    config, began = run.config, time.perf_counter()
    batch = next(evaluation_batches(images, evaluation_spec(config), config.batch_size, config.num_parallel_workers))
    read_s = time.perf_counter() - began
    return read_s, Timing(*(_seconds(lambda: evaluate(run.result, [batch])) for _ in range(2)))


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _megabytes(parameters: Mapping[str, ms.Parameter]) -> float:
    return float(sum(parameter.nbytes for parameter in parameters.values())) / 1e6
