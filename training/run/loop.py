"""The training run: epochs of steps, evaluation, log and checkpoints.

1. a run that was stopped or killed at any moment goes on from its last checkpoint and ends as if it had not been;
2. a loss that is not finite stops the run at once and names step, learning rate and loss scale; nothing is
   overwritten;
3. every epoch leaves a line in log.jsonl, a point in curves.png and `last.ckpt`, every evaluation `best.ckpt` when it
   is the best so far;
4. where weights are averaged, the averages are evaluated and kept as the best;
5. of several ranks rank 0 alone writes, figures are those of all, and all stop together, at a loss that is not finite
   as at the wish of one.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn
from tqdm import tqdm

from models.preprocess import to_tensor
from training.config import TrainConfig
from training.data import modelarts
from training.data.pipeline import (
    Batch,
    Images,
    evaluation_batches,
    evaluation_spec,
    open_split,
    steps_per_epoch,
    train_batches,
    verify,
)
from training.errors import TrainingError
from training.network import repvgg
from training.network.ema import PREFIX, Ema
from training.network.variants import VARIANTS
from training.network.whitening import patch_covariance, whitening_kernels
from training.optim.optimizers import optimizer, state
from training.optim.schedules import learning_rates
from training.run import checkpoint, ranks, resume
from training.run.device import ALONE, Place
from training.run.journal import Journal, Line
from training.run.resume import Progress
from training.run.step import TrainStep, evaluate, train_step
from training.run.stopping import StopRequest

WHITENED_FROM = 1000  # images; of 32x32 pixels that is a million patches for 378 numbers


@dataclass(frozen=True)
class Run:
    """What trains. `average` is the network of averaged weights, if any; an epoch has so many `steps`, each update
    its learning rate in `rates`.
    """

    config: TrainConfig
    network: nn.Cell
    average: nn.Cell | None
    ema: Ema | None
    updates: nn.Optimizer
    step: TrainStep
    steps: int
    rates: list[float]
    place: Place

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
    def images_a_step(self) -> int:
        """Of all ranks."""
        return self.config.batch_size * self.place.size

    @property
    def overflows(self) -> int:
        return int(self.step.loss_scale.overflows.asnumpy()) if self.step.loss_scale else 0


def assemble(config: TrainConfig, steps: int, place: Place = ALONE) -> Run:
    """Fresh weights and all else of a run with `steps` batches an epoch. Raises TrainingError for too short a run."""
    ms.set_seed(config.seed)
    network = repvgg.build(config.arch, config.num_classes)
    updates = optimizer(network, config, steps)
    average = repvgg.build(config.arch, config.num_classes).set_train(False) if config.with_ema else None
    ema = Ema(network, average, config.ema_decay) if average else None
    step = train_step(network, updates, config, ema, place)
    return Run(config, network, average, ema, updates, step, steps, learning_rates(config, steps), place)


def set_up(config: TrainConfig, place: Place = ALONE) -> tuple[Run, Progress, Images, Images]:
    """The run as it begins or goes on, with its images for training and validation. Raises TrainingError."""
    train_images, val_images = open_split(config, "train"), open_split(config, "val")
    if train_images.classes != val_images.classes:
        raise TrainingError(f"{train_images.root} and {val_images.root} have different classes")
    run = assemble(config, steps_per_epoch(train_images, config, num_shards=place.size), place)
    return run, _of_rank_0(_start(run), place), train_images, val_images


def train(config: TrainConfig, stop: StopRequest | None = None, place: Place = ALONE) -> Path:
    """Run the recipe to its end -> the best checkpoint. Raises TrainingError, Stopped where `stop` is requested.

    A rank that fails alone ends, and the launcher must end the others, which wait for it.
    """
    if config.train_url:
        modelarts.fetch_run(config.train_url, config.run_dir)
    run, progress, train_images, val_images = set_up(config, place)
    journal = Journal(config.run_dir, progress.epoch) if place.leads else None
    if progress == Progress():
        verify(train_images, config.verify_images, config.num_parallel_workers, **place.shard)
        if config.stem_init == "whitened" and not config.pretrained:
            _whiten_stem(run, train_images)
    ranks.share(run.parameters.values(), place)
    with stop or StopRequest() as stop:
        while progress.epoch < config.epochs:
            if progress.step < run.steps:
                _train_epoch(run, train_images, progress, stop)
            line = _end_epoch(run, val_images, progress, stop)
            if journal:
                journal.add(line, config.arch)
                left = tqdm.format_interval(journal.seconds_left(config.epochs))
                print(f"{_in_words(line)}, {left} left", flush=True)
            progress = Progress(
                progress.epoch + 1, progress.best_top1, updates=run.updates_done, overflows=run.overflows
            )
            _save(run, progress)  # after all else: an epoch that was cut off before is ended once more
    return config.run_dir / "best.ckpt"


def evaluate_on(
    network: nn.Cell,
    images: Images,
    config: TrainConfig,
    place: Place = ALONE,
    watch: Callable[[Iterator[Batch]], Iterator[Batch]] = iter,
) -> tuple[int, float, float]:
    """-> number of images, top-1 and top-5 as fractions. `watch` sees the batches pass, and may raise."""
    spec = evaluation_spec(config)
    batches = watch(evaluation_batches(images, spec, config.batch_size, config.num_parallel_workers, **place.shard))
    total = math.ceil(len(images) / (config.batch_size * place.size))
    return evaluate(network, tqdm(batches, "evaluate", total, leave=False, disable=_hidden(place)), place)


def _start(run: Run) -> Progress:
    """Restore everything from the checkpoint to go on from, if there is one, else `pretrained` weights."""
    config = run.config
    if source := resume.source(config):
        progress = resume.restore(source, run.parameters, config, run.steps)
        end = ", the last one" if progress.epoch == config.epochs else ""
        if run.place.leads:
            print(f"going on from {source} after {progress}{end}")
        if not (config.run_dir / "best.ckpt").is_file():  # as when it goes on in another folder
            progress.best_top1 = Progress.best_top1
        return progress
    if config.pretrained:
        saved = checkpoint.network_weights(checkpoint.read(config.pretrained))
        weights = repvgg.weights(run.network)
        fresh = checkpoint.start_from(
            weights, saved, reset_classifier=config.reset_classifier, source=config.pretrained
        )
        if run.place.leads:
            new = f"; new: {', '.join(fresh)}" if fresh else ""
            print(f"starting from {len(weights) - len(fresh)} parameters of {config.pretrained}{new}")
        if run.ema:
            run.ema.restart()
    return Progress()


def _of_rank_0(progress: Progress, place: Place) -> Progress:
    """What all ranks must agree on; another machine may not have the checkpoint."""
    counts = [progress.epoch, progress.step, progress.updates, progress.overflows]
    epoch, step, updates, overflows = (int(count) for count in ranks.first(counts, place))
    return replace(progress, epoch=epoch, step=step, updates=updates, overflows=overflows)


def _save(run: Run, progress: Progress) -> None:
    """All ranks at once: batch norms' statistics and half accumulated gradients become the means of all of them."""
    ranks.average(run.parameters.values(), run.place)
    if run.place.leads:
        resume.save(run.config.run_dir / "last.ckpt", run.parameters, progress, run.config, run.steps)
        _keep(run.config)
    ranks.wait(run.place)  # where one ends the launcher ends all, and this may be a stop


def _keep(config: TrainConfig) -> None:
    """Copy the run out to `train_url`; training is worth more than one copy, so a failure is only told."""
    if config.train_url:
        try:
            modelarts.keep_run(config.run_dir, config.train_url)
        except TrainingError as error:
            print(f"{error}; it is tried again when the run is saved next, and at the end", flush=True)


def _whiten_stem(run: Run, images: Images) -> None:
    """Kernels from WHITENED_FROM images that lie evenly over the split, as evaluation would see them."""
    spec, stride = evaluation_spec(run.config), math.ceil(len(images) / WHITENED_FROM)
    pictures = (images.picture(index) for index in range(0, len(images), stride))
    covariance = patch_covariance(to_tensor(picture, spec) for picture in pictures)
    repvgg.start_stem(run.network, whitening_kernels(covariance, VARIANTS[run.config.arch].widths[0]))
    if run.ema:
        run.ema.restart()


def _train_epoch(run: Run, images: Images, progress: Progress, stop: StopRequest) -> None:
    """Train what is left of the epoch under way and keep account in `progress`; save both now and then.

    Raises TrainingError at the first loss that is not finite, and if no update was made because all overflowed;
    Stopped, when all is saved.
    """
    run.network.set_train(True)
    config, recent = run.config, deque[float](maxlen=50)
    save_after_s = 60 * (config.checkpoint_minutes or math.inf)
    saved = before = time.perf_counter()
    with _bar(run, images, progress) as bar:
        for batch in bar:
            rate = run.learning_rate
            loss_tensor, right_tensor = run.step(batch["image"], batch["label"])
            loss = float(loss_tensor.asnumpy())
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {progress.step + 1} of epoch {progress.epoch + 1}, learning rate "
                    f"{rate:.3g}{_scale_in_words(run.step)}: lower base_lr or lengthen the warm-up; "
                    "the last checkpoint is untouched"
                )
            recent.append(loss)
            bar.set_postfix(loss=f"{np.mean(recent):.3f}", lr=f"{rate:.4f}", refresh=False)
            now = time.perf_counter()
            progress.add(loss, int(right_tensor.asnumpy()), now - before)
            before = now
            stops, saves = ranks.agreed(stop, now - saved > save_after_s, run.place)
            if saves:
                _save(run, progress)
                saved = now
            if stops:
                stop.check(f"after {progress}{_how_to_go_on(config)}")
    overflowed = run.overflows > progress.overflows and run.updates_done == progress.updates
    if overflowed and run.step.loss_scale and run.step.loss_scale.exhausted:
        raise TrainingError(
            f"every update of epoch {progress.epoch + 1} overflowed{_scale_in_words(run.step)}: "
            "lower base_lr, a static loss_scale or amp_level; the last checkpoint is untouched"
        )


def _bar(run: Run, images: Images, progress: Progress) -> tqdm[dict[str, ms.Tensor]]:
    """The batches left of the epoch, with a bar that counts images."""
    return tqdm(
        train_batches(images, run.config, progress.epoch, first=progress.step, **run.place.shard),
        f"epoch {progress.epoch + 1}/{run.config.epochs}",
        run.steps,
        initial=progress.step,
        unit=" images",
        unit_scale=run.images_a_step,
        disable=_hidden(run.place),
    )


def _hidden(place: Place) -> bool | None:
    """tqdm's `disable`: None shows the bar on a terminal only."""
    return None if place.leads else True


def _end_epoch(run: Run, images: Images, progress: Progress, stop: StopRequest) -> Line:
    """The epoch's line in the log, evaluated if it is due; the best network so far is kept.

    Raises Stopped; what was trained is saved.
    """
    config, epoch = run.config, progress.epoch + 1
    line = {
        "epoch": epoch,
        "loss": progress.loss_sum / run.steps,
        "train_top1": progress.right / (run.steps * run.images_a_step),
        "lr": run.rates[max(run.updates_done, 1) - 1],
        "images_per_second": run.steps * run.images_a_step / progress.seconds,
        "seconds": progress.seconds,
    }
    if run.step.loss_scale:
        line["loss_scale"] = float(run.step.loss_scale.scale.asnumpy())
        line["overflow_steps"] = run.overflows - progress.overflows
    if epoch % config.eval_interval == 0 or epoch == config.epochs:
        _save(run, progress)
        where, began = f"while epoch {epoch} was evaluated{_how_to_go_on(config)}", time.perf_counter()
        # Ranks that are done wait for the others, who must not stop then; the next step is soon enough.
        watch = iter if run.place.size > 1 else lambda batches: stop.watch(batches, where)
        _, top1, top5 = evaluate_on(run.result, images, config, run.place, watch)
        line |= {"val_top1": top1, "val_top5": top5, "seconds": progress.seconds + time.perf_counter() - began}
        if top1 > progress.best_top1:
            if run.place.leads:
                best = repvgg.weights(run.result)
                checkpoint.save(config.run_dir / "best.ckpt", best, {"epoch": epoch, "top1": top1})
            progress.best_top1 = top1
    return line


def _how_to_go_on(config: TrainConfig) -> str:
    again = "the same command" if config.resume == "auto" else "it with --resume auto"
    return f"; {config.run_dir / 'last.ckpt'} is saved, run {again} to go on"


def _scale_in_words(step: TrainStep) -> str:
    return f", loss scale {float(step.loss_scale.scale.asnumpy()):g}" if step.loss_scale else ""


def _in_words(line: Line) -> str:
    evaluated = f", val top-1 {line['val_top1']:.2%}" if "val_top1" in line else ""
    return (
        f"epoch {line['epoch']}: loss {line['loss']:.4f}, train {line['train_top1']:.2%}{evaluated}, "
        f"{line['images_per_second']:.0f} images/s"
    )
