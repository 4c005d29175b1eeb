"""`python -m training.train ... --dry-run`: what a run would cost, from two real steps; nothing is written."""

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
from training.run.device import ALONE, Place
from training.run.loop import Run, set_up
from training.run.step import evaluate


@dataclass(frozen=True)
class Seconds:
    """Of a call that compiles, and of the same one again."""

    first: float
    second: float

    @property
    def compilation(self) -> float:
        return max(0.0, self.first - self.second)


def rehearse(config: TrainConfig, place: Place = ALONE) -> str:
    """Build the run as it would begin, do two steps and evaluate a batch -> what all would cost, in lines of text.

    Raises TrainingError.
    """
    run, progress, train_images, val_images = set_up(config, place)
    step = _step_seconds(run, list(islice(train_batches(train_images, config, progress.epoch, **place.shard), 2)))
    read_s, evaluation = _evaluation_seconds(run, val_images)
    steps, evaluations = run.steps * config.epochs, math.ceil(config.epochs / config.eval_interval)
    compilation_s = step.compilation + evaluation.compilation
    training_h = steps * step.second / 3600
    evaluation_h = evaluations * math.ceil(len(val_images) / run.images_a_step) * (read_s + evaluation.second) / 3600
    lines = (
        f"steps: {steps}, {config.epochs} epochs of {run.steps} with {run.images_a_step} images each",
        f"compilation: {compilation_s:.1f} s",
        f"a step: {step.second:.3f} s, {run.images_a_step / step.second:.0f} images/s, if they come as fast "
        "(python -m training.data --measure)",
        f"whole run: {compilation_s / 3600 + training_h + evaluation_h:.2f} h, {training_h:.2f} h of it training, "
        f"{evaluation_h:.2f} h in {evaluations} evaluations",
        f"checkpoints: last.ckpt {_megabytes(run.parameters):.1f} MB, "
        f"best.ckpt {_megabytes(repvgg.weights(run.result)):.1f} MB",
        f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB, "
        "without that of an accelerator",
        "nothing was written",
    )
    return "\n".join(lines)


def _step_seconds(run: Run, batches: list[dict[str, Any]]) -> Seconds:
    """Of the first two steps; both take the same batch where there is only one."""

    def step(batch: dict[str, Any]) -> None:
        run.step(batch["image"], batch["label"])[0].asnumpy()  # waits for the device

    run.network.set_train(True)
    return Seconds(_seconds(lambda: step(batches[0])), _seconds(lambda: step(batches[-1])))


def _evaluation_seconds(run: Run, images: Images) -> tuple[float, Seconds]:
    """To read a batch, and to evaluate it twice."""
    config, began = run.config, time.perf_counter()
    batch = next(evaluation_batches(images, evaluation_spec(config), config.batch_size, config.num_parallel_workers))
    read_s = time.perf_counter() - began
    return read_s, Seconds(*(_seconds(lambda: evaluate(run.result, [batch])) for _ in range(2)))


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _megabytes(parameters: Mapping[str, ms.Parameter]) -> float:
    return float(sum(parameter.nbytes for parameter in parameters.values())) / 1e6
