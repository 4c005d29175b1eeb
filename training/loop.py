"""The training run: epochs of steps, evaluation, log and checkpoints.

1. a run that was killed at any moment goes on from its last whole epoch and ends as if it had not been;
2. a loss that is not finite stops the run at once and names step and learning rate; nothing is overwritten;
3. every epoch leaves a line in log.jsonl, `last.ckpt`, and `best.ckpt` when it is the best so far.
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

from training import checkpoint, repvgg
from training.config import TrainConfig
from training.data import ImageFolder, evaluation_batches, evaluation_spec, scan, steps_per_epoch, train_batches, verify
from training.errors import TrainingError
from training.optimizers import optimizer, state
from training.schedules import learning_rates
from training.step import TrainStep, evaluate, train_step


@dataclass
class Progress:
    """What a checkpoint remembers of the run beside its parameters; `epoch` counts finished ones."""

    epoch: int = 0
    best_top1: float = 0.0


def train(config: TrainConfig) -> Path:
    """Run the recipe to its end -> the best checkpoint. Raises TrainingError."""
    train_folder = scan(config.data_url / "train", config.num_classes)
    val_folder = scan(config.data_url / "val", config.num_classes)
    if train_folder.classes != val_folder.classes:
        raise TrainingError(f"{train_folder.root} and {val_folder.root} have different class folders")
    ms.set_seed(config.seed)
    steps = steps_per_epoch(train_folder, config)
    network = repvgg.build(config.arch, config.num_classes)
    updates = optimizer(network, config, steps)
    parameters = repvgg.weights(network) | state(updates, config)
    progress = _start(config, network, parameters)
    if progress.epoch == 0:
        verify(train_folder, config.verify_images, config.num_parallel_workers)
    step = train_step(network, updates, config)
    rates = learning_rates(config, steps)
    while progress.epoch < config.epochs:
        epoch = progress.epoch
        began = time.perf_counter()
        loss, accuracy = _train_epoch(network, step, train_folder, config, epoch, rates[epoch * steps :])
        trained_s = time.perf_counter() - began
        _, top1, top5 = evaluate_on(network, val_folder, config)
        improved = top1 > progress.best_top1
        progress.epoch, progress.best_top1 = epoch + 1, max(top1, progress.best_top1)
        checkpoint.save(config.run_dir / "last.ckpt", parameters, asdict(progress))
        if improved:
            checkpoint.save(config.run_dir / "best.ckpt", repvgg.weights(network), {"epoch": epoch + 1, "top1": top1})
        line = {
            "epoch": epoch + 1,
            "loss": loss,
            "train_top1": accuracy,
            "val_top1": top1,
            "val_top5": top5,
            "lr": rates[(epoch + 1) * steps - 1],
            "images_per_second": steps * config.batch_size / trained_s,
        }
        _log(config.run_dir / "log.jsonl", line)
    return config.run_dir / "best.ckpt"


def evaluate_on(network: nn.Cell, folder: ImageFolder, config: TrainConfig) -> tuple[int, float, float]:
    """-> number of images, top-1 and top-5 as fractions."""
    spec = evaluation_spec(config)
    batches = evaluation_batches(folder, spec, config.batch_size, config.num_parallel_workers)
    return evaluate(
        network, tqdm(batches, "evaluate", math.ceil(len(folder) / config.batch_size), leave=False, disable=None)
    )


def _start(config: TrainConfig, network: nn.Cell, parameters: dict[str, ms.Parameter]) -> Progress:
    """Fresh weights, `pretrained` ones, or everything from the last checkpoint of this run."""
    last = config.run_dir / "last.ckpt"
    if config.resume and last.is_file():
        saved = checkpoint.read(last)
        progress = Progress(int(saved.pop("epoch")), float(saved.pop("best_top1")))
        checkpoint.restore(parameters, saved, source=last)
        print(f"going on from {last} after epoch {progress.epoch}")
        return progress
    if config.pretrained:
        saved = checkpoint.network_weights(checkpoint.read(config.pretrained))
        checkpoint.restore(repvgg.weights(network), saved, source=config.pretrained)
    return Progress()


def _train_epoch(
    network: nn.Cell, step: TrainStep, folder: ImageFolder, config: TrainConfig, epoch: int, rates: list[float]
) -> tuple[float, float]:
    """-> mean loss and training accuracy. Raises TrainingError at the first loss that is not finite."""
    network.set_train(True)
    losses, right = [], 0
    total = steps_per_epoch(folder, config)
    with tqdm(
        train_batches(folder, config, epoch), f"epoch {epoch + 1}/{config.epochs}", total, unit="step", disable=None
    ) as bar:
        for index, batch in enumerate(bar):
            loss_tensor, right_tensor = step(batch["image"], batch["label"])
            loss = float(loss_tensor.asnumpy())
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {index + 1} of epoch {epoch + 1}, learning rate {rates[index]:.3g}: "
                    f"lower base_lr or lengthen the warm-up; the last checkpoint is untouched"
                )
            losses.append(loss)
            right += int(right_tensor.asnumpy())
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", lr=f"{rates[index]:.4f}", refresh=False)
    return float(np.mean(losses)), right / (len(losses) * config.batch_size)


def _log(path: Path, line: dict[str, float]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(
        f"epoch {line['epoch']}: loss {line['loss']:.4f}, train {line['train_top1']:.2%}, "
        f"val top-1 {line['val_top1']:.2%}, {line['images_per_second']:.0f} images/s",
        flush=True,
    )
