"""One epoch of a run: its training steps, and its end with the evaluation and the best checkpoint."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

import mindspore as ms
import numpy as np
from tqdm import tqdm

from training.config import TrainConfig
from training.data.pipeline import Images, train_batches
from training.errors import TrainingError
from training.network import repvgg
from training.run.assembly import Run
from training.run.checkpoints import checkpoint
from training.run.distributed import ranks
from training.run.evaluation import evaluate_images, evaluate_labels
from training.run.record.journal import Line
from training.run.resume import Progress, save_run
from training.run.step import TrainStep
from training.run.stopping import StopRequest

RECENT_STEPS = 50  # the progress bar shows their mean loss


def train_epoch(run: Run, images: Images, progress: Progress, stop: StopRequest) -> None:
    """Train the remaining steps of the epoch and count them in `progress`; save both every `checkpoint_minutes`.

    Raises TrainingError at the first loss that is not finite, or if every update of the epoch overflowed. Raises
    Stopped once everything is saved.
    """
    run.network.set_train(True)
    save_interval_s = 60 * (run.config.checkpoint_minutes or math.inf)
    recent = deque[float](maxlen=RECENT_STEPS)
    last_save = step_start = time.perf_counter()
    with _progress_bar(run, images, progress) as bar:
        for batch in bar:
            rate = run.learning_rate
            loss, right = _train_step(run, batch, progress, rate)
            recent.append(loss)
            bar.set_postfix(loss=f"{np.mean(recent):.3f}", lr=f"{rate:.4f}", refresh=False)
            now = time.perf_counter()
            progress.add(loss, right, now - step_start)
            step_start = now
            if _save_or_stop(run, progress, stop, save_due=now - last_save > save_interval_s):
                last_save = now
    _check_overflows(run, progress)


def finish_epoch(run: Run, images: Images, progress: Progress, stop: StopRequest) -> Line:
    """Evaluate if it is due, keep the best network, and return the epoch's line of the log.

    Raises Stopped; the training so far is saved.
    """
    line = _training_figures(run, progress)
    if line["epoch"] % run.config.eval_interval == 0 or line["epoch"] == run.config.epochs:
        save_run(run, progress)
        start = time.perf_counter()
        figures = _evaluate(run, images, progress, stop)
        line |= figures | {"seconds": progress.seconds + time.perf_counter() - start}
        best = figures.get("val_map", figures["val_top1"])
        if best > progress.best_top1:
            _save_best(run, progress, best)
    return line


def _progress_bar(run: Run, images: Images, progress: Progress) -> tqdm[dict[str, ms.Tensor]]:
    """The remaining batches of the epoch, behind a progress bar that counts images."""
    return tqdm(
        train_batches(images, run.config, progress.epoch, first=progress.step, **run.process.image_shard),
        f"epoch {progress.epoch + 1}/{run.config.epochs}",
        run.steps,
        initial=progress.step,
        unit=" images",
        unit_scale=run.images_per_step,
        disable=run.process.hides_progress,
    )


def _train_step(run: Run, batch: dict[str, Any], progress: Progress, rate: float) -> tuple[float, int]:
    """-> loss and number of right answers. Raises TrainingError if the loss is not finite."""
    loss_tensor, right = run.step(batch["image"], batch["label"])
    loss = float(loss_tensor.asnumpy())
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} at step {progress.step + 1} of epoch {progress.epoch + 1}, learning rate "
            f"{rate:.3g}{_describe_loss_scale(run.step)}: lower base_lr or lengthen the warm-up; "
            "the last checkpoint is unchanged"
        )
    return loss, int(right.asnumpy())


def _save_or_stop(run: Run, progress: Progress, stop: StopRequest, *, save_due: bool) -> bool:
    """Save if it is due or a stop was requested on any rank -> whether the run was saved. Raises Stopped."""
    stops, saves = ranks.agree(stop, save_due, run.process)
    if saves:
        save_run(run, progress)
    if stops:
        stop.check(f"after {progress}{_how_to_resume(run.config)}")
    return saves


def _check_overflows(run: Run, progress: Progress) -> None:
    """Raises TrainingError if no update of the epoch was applied and the loss scale cannot get any smaller."""
    all_overflowed = run.overflows > progress.overflows and run.updates_done == progress.updates
    if all_overflowed and run.step.loss_scale and run.step.loss_scale.exhausted:
        raise TrainingError(
            f"every update of epoch {progress.epoch + 1} overflowed{_describe_loss_scale(run.step)}: "
            "lower base_lr, a static loss_scale or amp_level; the last checkpoint is unchanged"
        )


def _training_figures(run: Run, progress: Progress) -> Line:
    images = run.steps * run.images_per_step
    line = {
        "epoch": progress.epoch + 1,
        "loss": progress.loss_sum / run.steps,
        "train_top1": progress.right / images,
        "lr": run.rates[max(run.updates_done, 1) - 1],
        "images_per_second": images / progress.seconds,
        "seconds": progress.seconds,
    }
    if run.step.loss_scale:
        line["loss_scale"] = float(run.step.loss_scale.scale.asnumpy())
        line["overflow_steps"] = run.overflows - progress.overflows
    return line


def _evaluate(run: Run, images: Images, progress: Progress, stop: StopRequest) -> Line:
    """-> top-1 and top-5; where several labels may apply, with `val_map`, the mean of the labels' average precisions.

    Raises Stopped in a run of one process. Several ranks wait for each other at the end of an evaluation, so none may
    leave early: they stop at the next step.
    """
    where = f"during the evaluation of epoch {progress.epoch + 1}{_how_to_resume(run.config)}"
    watch = iter if run.process.size > 1 else lambda batches: stop.watch(batches, where)
    if run.config.labels == "multi":
        hides = run.process.hides_progress
        found = evaluate_labels(run.result, images, run.config, watch, hides_progress=hides)
        return {"val_top1": found.hits(1), "val_top5": found.hits(5), "val_map": found.mean_average_precision}
    _, top1, top5 = evaluate_images(run.result, images, run.config, run.process, watch)
    return {"val_top1": top1, "val_top5": top5}


def _save_best(run: Run, progress: Progress, top1: float) -> None:
    if run.process.is_main:
        best = run.config.run_dir / "best.ckpt"
        entries: dict[str, int | float | str] = {
            "epoch": progress.epoch + 1,
            "top1": top1,
            **(run.about.entry if run.about else {}),
        }
        checkpoint.save(best, repvgg.weights(run.result), entries)
    progress.best_top1, progress.best_epoch = top1, progress.epoch + 1


def _how_to_resume(config: TrainConfig) -> str:
    command = "the same command" if config.resume == "auto" else "it with --resume auto"
    return f"; {config.run_dir / 'last.ckpt'} is saved, run {command} to resume"


def _describe_loss_scale(step: TrainStep) -> str:
    return f", loss scale {float(step.loss_scale.scale.asnumpy()):g}" if step.loss_scale else ""
