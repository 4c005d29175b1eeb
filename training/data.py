"""Image folders -> batches: `<root>/<class>/<image>`, classes in alphabetical order.

1. training reads through MindData's C++ operators, shuffled and augmented anew each epoch from (seed, epoch);
2. evaluation goes through models.preprocess, the code that serves, and counts every image, the last batch too;
3. a missing folder, an empty class and a broken image are errors that name the path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import mindspore.dataset as ds
import numpy as np
from mindspore.dataset import vision
from numpy.typing import NDArray
from tqdm import tqdm

from models.errors import ImageError
from models.manifest import Preprocess
from models.preprocess import decode, open_image, preprocess
from training.config import TrainConfig
from training.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"})

_INTERPOLATION = {
    "nearest": vision.Inter.NEAREST,
    "bilinear": vision.Inter.LINEAR,
    "bicubic": vision.Inter.PILCUBIC,  # Inter.BICUBIC is another filter than the one evaluation uses
}


@dataclass(frozen=True)
class ImageFolder:
    """`images` holds (path, class id); class ids count `classes`."""

    root: Path
    classes: tuple[str, ...]
    images: tuple[tuple[Path, int], ...]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Batch:
    """images float32 (B, 3, S, S), labels int32 (B,); only the first `count` rows are real."""

    images: NDArray[np.float32]
    labels: NDArray[np.int32]
    count: int


def scan(root: Path, num_classes: int) -> ImageFolder:
    """List an image folder. Raises DataError for a missing folder, an empty class or another number of classes."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: --data_url must hold train/<class>/* and val/<class>/*")
    classes = tuple(sorted(folder.name for folder in root.iterdir() if folder.is_dir()))
    if len(classes) != num_classes:
        raise DataError(f"{root} has {len(classes)} class folders, num_classes is {num_classes}")
    images = []
    for class_id, name in enumerate(classes):
        files = sorted(path for path in (root / name).iterdir() if path.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(f"{root / name} holds no image ({', '.join(sorted(SUFFIXES))})")
        images += [(path, class_id) for path in files]
    return ImageFolder(root, classes, tuple(images))


def verify(folder: ImageFolder, how: Literal["headers", "pixels"], workers: int) -> None:
    """Read every image before the run starts. Raises DataError that lists the broken ones.

    MindData's decoder fills a truncated image with grey and dies of SIGFPE on a truncated header (MindSpore 2.10).
    """
    read: Callable[[bytes], object] = open_image if how == "headers" else decode

    def problem(item: tuple[Path, int]) -> str | None:
        try:
            read(item[0].read_bytes())
        except ImageError as error:
            return f"{item[0]}: {error.detail}"
        except OSError as error:
            return f"{item[0]} cannot be read: {error.strerror}"
        return None

    with ThreadPoolExecutor(workers) as pool:
        results = tqdm(pool.map(problem, folder.images), "verify images", len(folder), leave=False, disable=None)
        broken = [text for text in results if text]
    if broken:
        listed = "\n  ".join(broken[:10]) + ("" if len(broken) <= 10 else f"\n  and {len(broken) - 10} more")
        raise DataError(f"{len(broken)} broken images in {folder.root}; remove or replace them:\n  {listed}")


def evaluation_spec(config: TrainConfig) -> Preprocess:
    """What evaluation and, through the bundle, the service do to a photo."""
    return Preprocess(
        input_size=config.image_size,
        interpolation=config.interpolation,
        crop_pct=config.crop_pct,
        mean=config.mean,
        std=config.std,
    )


def train_batches(folder: ImageFolder, config: TrainConfig, epoch: int) -> Iterator[dict[str, Any]]:
    """One epoch of {"image": (B, 3, S, S), "label": (B,)} tensors; a last incomplete batch is left out.

    Raises DataError with MindData's words, which name the image that cannot be decoded.
    """
    ds.config.set_seed(config.seed * 100_003 + epoch)
    class_ids = {name: class_id for class_id, name in enumerate(folder.classes)}
    workers = config.num_parallel_workers
    dataset = ds.ImageFolderDataset(
        str(folder.root), num_parallel_workers=workers, shuffle=True, class_indexing=class_ids, extensions=_extensions()
    )
    dataset = dataset.map(_train_operations(config), "image", num_parallel_workers=workers)
    dataset = dataset.batch(config.batch_size, drop_remainder=True)
    try:
        yield from dataset.create_dict_iterator(num_epochs=1)
    except RuntimeError as error:
        cause = re.search(r"\[ERROR\] (.*)", str(error))
        raise DataError(f"MindData: {cause[1] if cause else error}") from error


def steps_per_epoch(folder: ImageFolder, config: TrainConfig) -> int:
    """Raises DataError if there are fewer images than one batch holds."""
    steps = len(folder) // config.batch_size
    if steps == 0:
        raise DataError(f"{folder.root} has {len(folder)} images, fewer than one batch of {config.batch_size}")
    return steps


def evaluation_batches(folder: ImageFolder, spec: Preprocess, batch_size: int, workers: int) -> Iterator[Batch]:
    """Every image once, in the folder's order; the last batch is filled up to `batch_size` with zeros."""
    remaining = iter(folder.images)
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(islice(remaining, batch_size)):
            images = np.zeros((batch_size, 3, spec.input_size, spec.input_size), np.float32)
            labels = np.zeros(batch_size, np.int32)
            labels[: len(chunk)] = [class_id for _, class_id in chunk]
            for row, tensor in enumerate(pool.map(lambda item: _read(item[0], spec), chunk)):
                images[row] = tensor
            yield Batch(images, labels, len(chunk))


def _read(path: Path, spec: Preprocess) -> NDArray[np.float32]:
    try:
        return preprocess(path.read_bytes(), spec)
    except ImageError as error:
        raise DataError(f"{path}: {error.detail}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _train_operations(config: TrainConfig) -> list[Any]:
    size, filter_ = config.image_size, _INTERPOLATION[config.interpolation]
    if config.crop == "padded":
        crop = [vision.Decode(), vision.Resize((size, size), filter_), vision.RandomCrop(size, config.crop_padding)]
    else:
        crop = [vision.RandomCropDecodeResize(size, scale=(0.08, 1.0), interpolation=filter_)]
    mean, std = ([255.0 * value for value in values] for values in (config.mean, config.std))
    return [*crop, vision.RandomHorizontalFlip(), vision.Normalize(mean, std), vision.HWC2CHW()]


def _extensions() -> list[str]:
    return sorted(SUFFIXES | {suffix.upper() for suffix in SUFFIXES})
