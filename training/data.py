"""Images -> batches, for training and for evaluation; `python -m training.data` shows what training sees.

1. training reads through MindData's C++ operators, shuffled and augmented anew each epoch from (seed, epoch);
2. shards of an epoch neither overlap nor lose an image of a whole step, and all have the same number of steps;
3. evaluation goes through models.preprocess, the code that serves, and counts every image, the last batch too;
4. a missing folder, an empty class and a broken image are errors that name the path.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.manifest import Preprocess
from models.preprocess import to_tensor
from training.config import TrainConfig
from training.datasets import SUFFIXES, ImageFolder, Images, open_split, scan, verify
from training.errors import DataError

__all__ = [
    "SUFFIXES",
    "Batch",
    "ImageFolder",
    "Images",
    "epoch_order",
    "evaluation_batches",
    "evaluation_spec",
    "open_split",
    "scan",
    "steps_per_epoch",
    "train_batches",
    "verify",
]


def steps_per_epoch(images: Images, config: TrainConfig, *, num_shards: int = 1) -> int:
    """Raises DataError if there are fewer images than one step of all shards takes."""
    steps = len(images) // (config.batch_size * num_shards)
    if steps == 0:
        shards = "" if num_shards == 1 else f" on each of {num_shards} devices"
        raise DataError(f"{images.root} has {len(images)} images, fewer than one batch of {config.batch_size}{shards}")
    return steps


def epoch_order(
    images: Images, config: TrainConfig, epoch: int, *, num_shards: int = 1, shard_id: int = 0
) -> NDArray[np.int64]:
    """Indices of this shard's images, in the order of this epoch.

    The shuffled images are dealt out one by one, so that a step of all shards sees the images that one device with
    the batch of all of them would see. What fills no whole step is left out, other images in each epoch.
    """
    used = steps_per_epoch(images, config, num_shards=num_shards) * config.batch_size * num_shards
    shuffled = np.random.default_rng((config.seed, epoch)).permutation(len(images))
    return shuffled[shard_id:used:num_shards]


def train_batches(
    images: Images, config: TrainConfig, epoch: int, *, num_shards: int = 1, shard_id: int = 0
) -> Iterator[dict[str, Any]]:
    """One epoch of {"image": float32 (B, 3, S, S), "label": int32 (B,)} tensors; an incomplete batch is left out.

    The same (seed, epoch, shard, number of workers) gives the same batches. Raises DataError.
    """
    import mindspore.dataset as ds  # takes seconds: not for --help

    from training import augment

    workers = min(config.num_parallel_workers, os.cpu_count() or 1)  # MindData refuses more than there are cores
    order = epoch_order(images, config, epoch, num_shards=num_shards, shard_id=shard_id)
    source = _Source(images, order)
    ds.config.set_seed(int(np.random.SeedSequence((config.seed, epoch, shard_id)).generate_state(1)[0]))
    dataset = ds.GeneratorDataset(
        source, ["image", "label"], shuffle=False, num_parallel_workers=workers, python_multiprocessing=False
    )
    operations = augment.operations(config, encoded=isinstance(images, ImageFolder))
    dataset = dataset.map(operations, "image", num_parallel_workers=workers)
    dataset = dataset.batch(config.batch_size, drop_remainder=True)
    try:
        yield from dataset.create_dict_iterator(num_epochs=1)
    except RuntimeError as error:
        source.explain()
        cause = re.search(r"\[ERROR\] (.*)", str(error))
        raise DataError(f"MindData: {cause[1] if cause else error}") from error


class _Source:
    """Random access to an epoch's images for MindData; remembers what it read last, to explain a failure."""

    def __init__(self, images: Images, order: NDArray[np.int64]) -> None:
        self._images, self._order, self._labels = images, order, images.labels
        self._recent: deque[int] = deque(maxlen=4096)  # more than MindData reads ahead

    def __deepcopy__(self, _: object) -> _Source:
        return self  # MindData copies what it reads from, which here may be all pixels of a data set

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, position: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        index = int(self._order[position])
        self._recent.append(index)
        return self._images.stored(index), np.array(self._labels[index])

    def explain(self) -> None:
        """Raises DataError that names the broken images among the last ones read, if there are any."""
        if isinstance(self._images, ImageFolder):
            recent = tuple(self._images.images[index] for index in sorted(set(self._recent)))
            verify(ImageFolder(self._images.root, self._images.classes, recent), "pixels", 1)


def evaluation_spec(config: TrainConfig) -> Preprocess:
    """What evaluation and, through the bundle, the service do to a photo."""
    return Preprocess(
        input_size=config.image_size,
        interpolation=config.interpolation,
        crop_pct=config.crop_pct,
        mean=config.mean,
        std=config.std,
    )


@dataclass(frozen=True)
class Batch:
    """images float32 (B, 3, S, S), labels int32 (B,); only the first `count` rows are real."""

    images: NDArray[np.float32]
    labels: NDArray[np.int32]
    count: int


def evaluation_batches(
    images: Images, spec: Preprocess, batch_size: int, workers: int, *, num_shards: int = 1, shard_id: int = 0
) -> Iterator[Batch]:
    """Every image once, in order; the last batch is filled up to `batch_size` with zeros.

    Shard `shard_id` of `num_shards` has every num_shards-th image, so that the counts of all shards add up to all.
    """
    mine, labels = range(shard_id, len(images), num_shards), images.labels
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(mine), batch_size):
            chunk = mine[start : start + batch_size]
            batch = Batch(
                np.zeros((batch_size, 3, spec.input_size, spec.input_size), np.float32),
                np.zeros(batch_size, np.int32),
                len(chunk),
            )
            batch.labels[: len(chunk)] = labels[chunk]
            for row, tensor in enumerate(pool.map(lambda index: to_tensor(images.picture(index), spec), chunk)):
                batch.images[row] = tensor
            yield batch
