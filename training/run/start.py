"""How a run starts: it opens its images and takes its first weights from a checkpoint or from the training images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.config import TrainConfig
from training.data import bundles
from training.data.images import tensor_of
from training.data.names import listed
from training.data.pipeline import Images, evaluation_spec, open_splits, steps_per_epoch, verify
from training.data.verification import broken
from training.errors import ConfigError, DataError
from training.network import repvgg
from training.network.whitening import patch_covariance, whitening_kernels
from training.optim.losses import balanced_weights
from training.run import resume
from training.run.assembly import Run, assemble
from training.run.bundled import fine_tuning, teacher
from training.run.callbacks import Callback, build_callbacks, on_build
from training.run.checkpoints import about, checkpoint
from training.run.distributed import ranks
from training.run.distributed.device import SINGLE_PROCESS, Process
from training.run.resume import Progress
from weights.variants import VARIANTS

WHITENING_IMAGES = 1000  # at 32x32 pixels, a million patches for the 378 distinct numbers of the covariance


def start(
    config: TrainConfig, process: Process = SINGLE_PROCESS, callbacks: Sequence[Callback] | None = None
) -> tuple[Run, Progress, Images, Images]:
    """The run, new or resumed, how far it is, and its training and validation images, all of which are verified: they
    may have changed since the run was stopped. `callbacks`: those of the recipe if they are not given. Raises
    TrainingError."""
    if config.labels == "multi" and process.size > 1:
        raise ConfigError("labels: multi runs in one process: average precision needs all images in one place")
    train_images, val_images = splits = open_splits(config)
    spec, readers, shard = evaluation_spec(config), config.num_parallel_workers, process.image_shard
    skipped: list[str] = []
    if config.on_bad_image == "skip":
        train_images, val_images, skipped = _without_broken(splits, config)
    config = config.model_copy(update={"num_classes": len(train_images.classes)})
    weights = None
    if config.class_weights == "balanced":
        weights = balanced_weights(train_images.labels, config.classes)
    said = about.of_run(config, train_images, val_images, len(skipped))
    steps = steps_per_epoch(train_images, config, num_shards=process.size)
    teaches = teacher.find(config, train_images.classes)
    callbacks = build_callbacks(config) if callbacks is None else callbacks
    run = assemble(config, steps, process, said, weights, teaches, lambda network: on_build(callbacks, network))
    progress = _agree_on_progress(_load_weights(run), process)
    if config.on_bad_image == "stop":
        verify(splits, spec, config.verify_images, readers, **shard)
    return replace(run, skipped=tuple(skipped)), progress, train_images, val_images


def _without_broken(splits: tuple[Images, Images], config: TrainConfig) -> tuple[Images, Images, list[str]]:
    """Both splits without their broken images, and a line about each broken one. Every rank reads all files, so that
    all ranks leave out the same images. Raises DataError if a class has no image left."""
    kept: list[Images] = []
    lines: list[str] = []
    for images in splits:
        found = broken(images, evaluation_spec(config), config.verify_images, config.num_parallel_workers)
        rest = images.subset([index for index in range(len(images)) if index not in found])
        if bare := {*images.labels.tolist()} - {*rest.labels.tolist()}:
            classes = listed(images.classes[class_id] for class_id in sorted(bare))
            raise DataError(f"{images.root}: every image of {classes} is broken, such as {next(iter(found.values()))}")
        kept.append(rest)
        lines += found.values()
    return kept[0], kept[1], lines


def prepare_first_epoch(run: Run, train_images: Images) -> None:
    """Take the weights of a bundle, or whiten the stem, if the recipe says so. Raises TrainingError."""
    if bundle := bundles.find(run.config.pretrained):
        done = fine_tuning.load(run, bundle, train_images)
        if run.process.is_main:
            print(done)
    if run.config.stem_init == "whitened" and not run.config.pretrained:
        _whiten_stem_weights(run, train_images)


def _load_weights(run: Run) -> Progress:
    """Resume from a checkpoint, or load the `pretrained` weights, or keep the fresh ones."""
    if source := resume.find_checkpoint(run.config):
        return _resume(run, source)
    if run.config.pretrained and not bundles.find(run.config.pretrained):
        if run.config.fused:
            raise ConfigError(
                f"fused: True trains a bundle's kernels, and {run.config.pretrained} is no bundle: "
                "training.export --bundle makes one, or set fused: False"
            )
        _load_pretrained(run, run.config.pretrained)
    return Progress()


def _resume(run: Run, source: Path) -> Progress:
    config = run.config
    progress = resume.restore(source, run.parameters, config, run.steps, run.about)
    if run.process.is_main:
        end = ", the last one" if progress.epoch == config.epochs else ""
        print(f"resuming from {source} after {progress}{end}")
    if not (config.run_dir / "best.ckpt").is_file():  # the run is resumed in another folder
        progress.best_top1 = Progress.best_top1
    return progress


def _load_pretrained(run: Run, source: Path) -> None:
    entries = checkpoint.read(source)
    if run.about and not run.config.reset_classifier:
        about.check_classes(
            about.parse(entries, source),
            run.about.classes,
            source=source,
            root=Path(run.config.data_url),
            advice="--reset_classifier True loads all other weights and starts with a new classifier",
        )
    saved = checkpoint.network_weights(entries)
    weights = repvgg.weights(run.network)
    fresh = checkpoint.start_from(weights, saved, reset_classifier=run.config.reset_classifier, source=source)
    if run.process.is_main:
        new = f"; new: {', '.join(fresh)}" if fresh else ""
        print(f"starting from {len(weights) - len(fresh)} parameters of {source}{new}")
    if run.ema:
        run.ema.restart()


def _agree_on_progress(progress: Progress, process: Process) -> Progress:
    """Rank 0's progress for every rank: another machine may not have the checkpoint."""
    counts = [progress.epoch, progress.step, progress.updates, progress.overflows, bool(progress.ended)]
    epoch, step, updates, overflows, ended = (int(count) for count in ranks.from_rank_0(counts, process))
    reason = progress.ended or "rank 0 said so" if ended else ""
    return replace(progress, epoch=epoch, step=step, updates=updates, overflows=overflows, ended=reason)


def _whiten_stem_weights(run: Run, images: Images) -> None:
    """Use WHITENING_IMAGES images, evenly spaced over the split and preprocessed as in evaluation."""
    spec, stride = evaluation_spec(run.config), math.ceil(len(images) / WHITENING_IMAGES)
    covariance = patch_covariance(tensor_of(images, index, spec) for index in range(0, len(images), stride))
    repvgg.set_stem_kernels(run.network, whitening_kernels(covariance, VARIANTS[run.config.arch].widths[0]))
    if run.ema:
        run.ema.restart()
