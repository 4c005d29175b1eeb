"""python -m training.data --config RECIPE: draw what training sees, or measure the data pipeline's speed."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.config import TrainConfig, parse
from training.data import bundles
from training.data.contact_sheet import caption, draw, strip
from training.data.datasets import held_out, open_splits
from training.data.images import Images, tensor_of
from training.data.pipeline import epoch_order, evaluation_spec, train_batches, worker_threads
from training.data.verification import verify
from training.errors import ConfigError, TrainingError, reporting_errors

NOTES = (
    "Normal: you can tell the class of nearly every picture; some are cropped, mirrored, turned, brighter or darker; "
    "with MixUp or CutMix two pictures share a place, with both names and their shares.",
    "Not normal: many pictures nearly black or of one colour (weaken auto_augment or re_prob), without their object "
    "(raise the first number of crop_scale), upside down (turn off vflip), or with a wrong name (move the photo).",
)
EPOCHS = 4  # in a strip
MEASURED_S = 10.0  # long enough for the pipeline to settle


def verified_images(config: TrainConfig) -> Images:
    """The training images, once all files of train and val are verified. Raises TrainingError."""
    train, val = open_splits(config)
    verify((train, val), evaluation_spec(config), config.verify_images, config.num_parallel_workers)
    return train


def save_grid(images: Images, config: TrainConfig, path: Path, count: int) -> str:
    """Draw the first `count` images of the first epoch into `path` -> a line for the user. Raises TrainingError."""
    count = min(count, len(images))
    batch = next(iter(train_batches(images, config.model_copy(update={"batch_size": count}), 0)))
    captions = [caption(label, images.classes) for label in batch["label"].asnumpy()]
    sheet = draw(batch["image"].asnumpy(), captions, config.mean, config.std, NOTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except (OSError, ValueError) as error:  # ValueError: the suffix names no image format
        raise TrainingError(f"{path} cannot be written: {error}") from error
    return "\n".join((f"{path}: {count} of {len(images)} images, as the network sees them", *NOTES))


def save_strips(images: Images, config: TrainConfig, folder: Path, count: int) -> str:
    """Draw `count` images, spread over the classes, each as it is evaluated and in the first EPOCHS epochs, into
    `folder` -> a line for the user. Raises TrainingError."""
    chosen = images.subset(held_out(images.labels, count, config.seed).tolist())
    config = config.model_copy(update={"batch_size": len(chosen), "sampling": "shuffled", "mix_up": 0.0, "cutmix": 0.0})
    epochs = []
    for epoch in range(EPOCHS):
        batch = next(iter(train_batches(chosen, config, epoch)))["image"].asnumpy()
        epochs.append(batch[np.argsort(epoch_order(chosen, config, epoch))])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(len(chosen)):
            plain, augmented = tensor_of(chosen, index, evaluation_spec(config)), [batch[index] for batch in epochs]
            strip(plain, np.stack(augmented), config.mean, config.std).save(folder / f"{index}.jpg", quality=85)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written: {error.strerror}") from error
    return f"{folder}: {len(chosen)} images, each as it is served and as the network sees it in {EPOCHS} epochs"


def measure(images: Images, config: TrainConfig) -> str:
    """Time the first epoch, at most MEASURED_S of it, including its start. Raises DataError."""
    import mindspore.dataset  # noqa: F401  # the import must not be measured

    began, began_cpu, count = time.perf_counter(), time.process_time(), 0
    for _ in train_batches(images, config, 0):
        count += config.batch_size
        if time.perf_counter() - began > MEASURED_S:
            break
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    workers = worker_threads(config)
    return (
        f"{count / wall_s:.0f} images/s with {workers} worker threads, {count / wall_s / workers:.0f} each; "
        f"{count / cpu_s:.0f} images per second of CPU time"
    )


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    config, _, flags = parse(
        argv,
        prog="python -m training.data",
        description="Read all image files of train and val, then draw a contact sheet of augmented images, or measure "
        "the speed of the data pipeline.",
        **{
            "save-grid": {"type": Path, "metavar": "FILE.png", "help": "draw augmented images with their labels"},
            "save-strips": {
                "type": Path,
                "metavar": "FOLDER",
                "help": "draw several augmented versions of some images, one file per image",
            },
            "images": {"type": int, "default": 64, "metavar": "N", "help": "how many to draw [default: 64]"},
            "measure": {"action": "store_true", "help": "print images/s of the data pipeline alone"},
        },
    )
    config, _ = bundles.follow(config)
    if not (flags.save_grid or flags.save_strips or flags.measure):
        raise ConfigError("nothing to do: give --save-grid FILE.png, --save-strips FOLDER or --measure")
    if flags.images < 1:
        raise ConfigError(f"--images {flags.images}: draw at least 1")
    images = verified_images(config)
    if flags.save_grid:
        print(save_grid(images, config, flags.save_grid, flags.images))
    if flags.save_strips:
        print(save_strips(images, config, flags.save_strips, flags.images))
    if flags.measure:
        print(measure(images, config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
