"""The training run: epochs of steps, evaluation, log and checkpoints.

1. a run that was killed at any moment goes on from its last whole epoch and ends as if it had not been;
2. a loss that is not finite stops the run at once and names step, learning rate and loss scale; nothing is
   overwritten;
3. every epoch leaves a line in log.jsonl, `last.ckpt`, and `best.ckpt` when it is the best so far;
4. where weights are averaged, the averages are evaluated and kept as the best.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn
from tqdm import tqdm

from models.preprocess import to_tensor
from training import checkpoint, repvgg
from training.config import TrainConfig
from training.data import (
    Images,
    evaluation_batches,
    evaluation_spec,
    open_split,
    steps_per_epoch,
    train_batches,
    verify,
)
from training.ema import PREFIX, Ema
from training.errors import TrainingError
from training.optimizers import optimizer, state
from training.schedules import learning_rates
from training.step import TrainStep, evaluate, train_step
from training.variants import VARIANTS
from training.whitening import patch_covariance, whitening_kernels

WHITENED_FROM = 1000  # images; of 32x32 pixels that is a million patches for 378 numbers


@dataclass
class Progress:
    """What a checkpoint remembers of the run beside its parameters; `epoch` counts finished ones."""

    epoch: int = 0
    best_top1: float = 0.0


@dataclass(frozen=True)
class Run:
    """What trains. `rates` is the learning rate of each update, `average` the network of averaged weights, if any."""

    config: TrainConfig
    network: nn.Cell
    average: nn.Cell | None
    ema: Ema | None
    updates: nn.Optimizer
    step: TrainStep
    rates: list[float]

    @property
    def result(self) -> nn.Cell:
        """The network that is evaluated and kept as the best."""
        return self.network if self.average is None else self.average

    @property
    def parameters(self) -> dict[str, ms.Parameter]:
        """All that must be restored for the run to go on as if it had not stopped."""
        averages = repvgg.weights(self.average) if self.average else {}
        everything = repvgg.weights(self.network) | state(self.updates, self.config) | self.step.state
        return everything | {PREFIX + name: parameter for name, parameter in averages.items()}

    @property
    def updates_done(self) -> int:
        return int(self.updates.global_step.asnumpy()[0])

    @property
    def learning_rate(self) -> float:
        """That of the next update."""
        return self.rates[min(self.updates_done, len(self.rates) - 1)]

    @property
    def overflows(self) -> int:
        return int(self.step.loss_scale.overflows.asnumpy()) if self.step.loss_scale else 0


def assemble(config: TrainConfig, steps: int) -> Run:
    """Fresh weights and all else of a run with `steps` batches an epoch. Raises TrainingError for too short a run."""
    ms.set_seed(config.seed)
    network = repvgg.build(config.arch, config.num_classes)
    updates = optimizer(network, config, steps)
    average = repvgg.build(config.arch, config.num_classes).set_train(False) if config.with_ema else None
    ema = Ema(network, average, config.ema_decay) if average else None
    step = train_step(network, updates, config, ema)
    return Run(config, network, average, ema, updates, step, learning_rates(config, steps))


def train(config: TrainConfig) -> Path:
    """Run the recipe to its end -> the best checkpoint. Raises TrainingError."""
    train_images, val_images = open_split(config, "train"), open_split(config, "val")
    if train_images.classes != val_images.classes:
        raise TrainingError(f"{train_images.root} and {val_images.root} have different classes")
    steps = steps_per_epoch(train_images, config)
    run = assemble(config, steps)
    progress = _start(run)
    if progress.epoch == 0:
        verify(train_images, config.verify_images, config.num_parallel_workers)
        if config.stem_init == "whitened" and not config.pretrained:
            _whiten_stem(run, train_images)
    while progress.epoch < config.epochs:
        epoch, overflows = progress.epoch, run.overflows
        began = time.perf_counter()
        loss, accuracy = _train_epoch(run, train_images, epoch)
        trained_s = time.perf_counter() - began
        _, top1, top5 = evaluate_on(run.result, val_images, config)
        improved = top1 > progress.best_top1
        progress.epoch, progress.best_top1 = epoch + 1, max(top1, progress.best_top1)
        checkpoint.save(config.run_dir / "last.ckpt", run.parameters, asdict(progress))
        if improved:
            best = repvgg.weights(run.result)
            checkpoint.save(config.run_dir / "best.ckpt", best, {"epoch": epoch + 1, "top1": top1})
        line = {
            "epoch": epoch + 1,
            "loss": loss,
            "train_top1": accuracy,
            "val_top1": top1,
            "val_top5": top5,
            "lr": run.rates[max(run.updates_done, 1) - 1],
            "images_per_second": steps * config.batch_size / trained_s,
        }
        if run.step.loss_scale:
            line |= {
                "loss_scale": float(run.step.loss_scale.scale.asnumpy()),
                "overflow_steps": run.overflows - overflows,
            }
        _log(config.run_dir / "log.jsonl", line)
    return config.run_dir / "best.ckpt"


def evaluate_on(network: nn.Cell, images: Images, config: TrainConfig) -> tuple[int, float, float]:
    """-> number of images, top-1 and top-5 as fractions."""
    spec = evaluation_spec(config)
    batches = evaluation_batches(images, spec, config.batch_size, config.num_parallel_workers)
    return evaluate(
        network, tqdm(batches, "evaluate", math.ceil(len(images) / config.batch_size), leave=False, disable=None)
    )


def _start(run: Run) -> Progress:
    """Restore everything from the last checkpoint of this run, if there is one, else `pretrained` weights."""
    config = run.config
    last = config.run_dir / "last.ckpt"
    if config.resume and last.is_file():
        saved = checkpoint.read(last)
        progress = Progress(int(saved.pop("epoch")), float(saved.pop("best_top1")))
        checkpoint.restore(run.parameters, saved, source=last)
        print(f"going on from {last} after epoch {progress.epoch}")
        return progress
    if config.pretrained:
        saved = checkpoint.network_weights(checkpoint.read(config.pretrained))
        checkpoint.restore(repvgg.weights(run.network), saved, source=config.pretrained)
        if run.ema:
            run.ema.restart()
    return Progress()


def _whiten_stem(run: Run, images: Images) -> None:
    """Kernels from WHITENED_FROM images that lie evenly over the split, as evaluation would see them."""
    spec, stride = evaluation_spec(run.config), math.ceil(len(images) / WHITENED_FROM)
    pictures = (images.picture(index) for index in range(0, len(images), stride))
    covariance = patch_covariance(to_tensor(picture, spec) for picture in pictures)
    repvgg.start_stem(run.network, whitening_kernels(covariance, VARIANTS[run.config.arch].widths[0]))
    if run.ema:
        run.ema.restart()


def _train_epoch(run: Run, images: Images, epoch: int) -> tuple[float, float]:
    """-> mean loss and training accuracy.

    Raises TrainingError at the first loss that is not finite, and if no update was made because all overflowed.
    """
    run.network.set_train(True)
    config, losses, right = run.config, [], 0
    updates_before, overflows_before = run.updates_done, run.overflows
    total = steps_per_epoch(images, config)
    with tqdm(
        train_batches(images, config, epoch), f"epoch {epoch + 1}/{config.epochs}", total, unit="step", disable=None
    ) as bar:
        for index, batch in enumerate(bar):
            rate = run.learning_rate
            loss_tensor, right_tensor = run.step(batch["image"], batch["label"])
            loss = float(loss_tensor.asnumpy())
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {index + 1} of epoch {epoch + 1}, learning rate {rate:.3g}"
                    f"{_scale_in_words(run.step)}: lower base_lr or lengthen the warm-up; "
                    "the last checkpoint is untouched"
                )
            losses.append(loss)
            right += int(right_tensor.asnumpy())
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", lr=f"{rate:.4f}", refresh=False)
    scale = run.step.loss_scale
    if scale and scale.exhausted and run.updates_done == updates_before and run.overflows > overflows_before:
        raise TrainingError(
            f"every update of epoch {epoch + 1} overflowed{_scale_in_words(run.step)}: "
            "lower base_lr, a static loss_scale or amp_level; the last checkpoint is untouched"
        )
    return float(np.mean(losses)), right / (len(losses) * config.batch_size)


def _scale_in_words(step: TrainStep) -> str:
    return f", loss scale {float(step.loss_scale.scale.asnumpy()):g}" if step.loss_scale else ""


def _log(path: Path, line: dict[str, float]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(
        f"epoch {line['epoch']}: loss {line['loss']:.4f}, train {line['train_top1']:.2%}, "
        f"val top-1 {line['val_top1']:.2%}, {line['images_per_second']:.0f} images/s",
        flush=True,
    )
