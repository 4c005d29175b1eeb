"""Images -> batches, for training and for evaluation.

1. training and evaluation see the same pixels: models.preprocess, which the service uses too, makes them, and with
   all augmentation off (`crop: padded`, `crop_padding: 0`, `hflip: 0`) their tensors are equal bit for bit;
2. training shuffles and augments anew each epoch from (seed, epoch); an epoch entered at a later step continues with
   the same batches;
3. shards of an epoch neither overlap nor lose an image of a whole step, and all have the same number of steps;
4. evaluation counts every image, including those of an incomplete last batch;
5. an image that breaks during the epoch is an error that names it.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.manifest import Preprocess
from training.config import TrainConfig, policies
from training.config.policies import AugMix, Policy
from training.data.augmentation.crops import square
from training.data.augmentation.mixing import BatchChanges
from training.data.datasets import ImageFolder, open_split, open_splits, scan
from training.data.images import Images, tensor_of
from training.data.verification import verify
from training.errors import DataError

__all__ = [
    "Batch",
    "ImageFolder",
    "Images",
    "epoch_order",
    "evaluation_batches",
    "evaluation_spec",
    "open_split",
    "open_splits",
    "scan",
    "steps_per_epoch",
    "train_batches",
    "verify",
]

Row = tuple[NDArray[np.uint8], NDArray[Any]]  # pixels (S, S, 3), and the class id or the labels (K,)
CHUNK = 64  # images that a thread reads at once
PART = 1000  # steps that share a stream of random numbers: the most that a resumed run repeats to draw the same ones


def steps_per_epoch(images: Images, config: TrainConfig, *, num_shards: int = 1) -> int:
    """Raises DataError if there are fewer images than one step of all shards takes."""
    steps = len(images) // (config.batch_size * num_shards)
    if steps == 0:
        shards = "" if num_shards == 1 else f" on each of {num_shards} devices"
        most = len(images) // num_shards
        advice = f"give batch_size {most} or less" if most else "use fewer devices"
        raise DataError(
            f"{images.root} has {len(images)} images, fewer than one batch of {config.batch_size}{shards}: {advice}"
        )
    return steps


def epoch_order(
    images: Images, config: TrainConfig, epoch: int, *, num_shards: int = 1, shard_id: int = 0
) -> NDArray[np.int64]:
    """Indices of this shard's images, in the order of this epoch.

    The shuffled images are dealt out one by one, so that a step of all shards sees the images that a single device
    with their total batch size would see. Images that do not fill a step are left out, different ones in each epoch.
    With `sampling: balanced`, an epoch has as many images, equally many of each class.
    """
    used = steps_per_epoch(images, config, num_shards=num_shards) * config.batch_size * num_shards
    rng = np.random.default_rng((config.seed, epoch))
    shuffled = rng.permutation(len(images)) if config.sampling == "shuffled" else _balanced_order(images.labels, rng)
    return shuffled[shard_id:used:num_shards]


def _balanced_order(labels: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int64]:
    """As many indices as labels, in random order, equally many of each class up to one: a class that has fewer images
    repeats all of them before any of them once more."""
    classes = rng.permutation(np.unique(labels))
    wanted = len(labels) // len(classes) + (np.arange(len(classes)) < len(labels) % len(classes))
    drawn = []
    for class_id, count in zip(classes, wanted, strict=True):
        own = np.flatnonzero(labels == class_id)
        rounds = [rng.permutation(own) for _ in range(-(-int(count) // len(own)))]
        drawn.append(np.concatenate(rounds)[:count])
    return rng.permutation(np.concatenate(drawn))


def train_batches(
    images: Images, config: TrainConfig, epoch: int, *, first: int = 0, num_shards: int = 1, shard_id: int = 0
) -> Iterator[dict[str, Any]]:
    """One epoch from step `first` on: {"image": float32 (B, 3, S, S), "label": ...} tensors of each step.

    "label" is int32 (B,), or with several labels, MixUp or CutMix float32 (B, K), the share of each class,
    without label smoothing. The same (seed, epoch, shard, number of workers) gives the same batches, wherever they
    start: random operators are seeded again every PART steps, and the steps of a part before `first` are augmented and
    dropped. Raises DataError.
    """
    config = config.at_epoch(epoch).model_copy(update={"num_classes": len(images.classes)})
    order = epoch_order(images, config, epoch, num_shards=num_shards, shard_id=shard_id)
    parts = np.split(order, range(PART * config.batch_size, len(order), PART * config.batch_size))
    for number, part in enumerate(parts[first // PART :], first // PART):
        source = _Source(images, part, config, epoch)
        batches = _batches(source, config, (config.seed, epoch, shard_id, number))
        yield from islice(batches, max(0, first - number * PART), None)


def _batches(source: _Source, config: TrainConfig, seed: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """The batches of `source`, augmented; as `train_batches`."""
    import mindspore.dataset as ds  # takes seconds: not for --help

    ds.config.set_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    policy = policies.parse(config.auto_augment) if config.auto_augment else None
    dataset = _augmented(source, config, policy, seed)
    changes = BatchChanges(config, policy.alpha if isinstance(policy, AugMix) else None, seed)
    if changes.any:
        dataset = dataset.batch(
            config.batch_size, drop_remainder=True, per_batch_map=changes, output_columns=["image", "label"]
        )
    else:
        dataset = dataset.batch(config.batch_size, drop_remainder=True)
    try:
        yield from dataset.create_dict_iterator(num_epochs=1)
    except RuntimeError as error:
        cause = re.search(r"\[ERROR\] (.*)", str(error))
        raise DataError(f"MindData: {cause[1] if cause else error}") from error
    if source.failure:
        raise source.failure


def _augmented(source: _Source, config: TrainConfig, policy: Policy | None, seed: tuple[int, ...]) -> Any:
    """-> dataset of the columns image and label, and a column for each chain of AugMix."""
    import mindspore.dataset as ds

    from training.data.augmentation import augment

    workers = worker_threads(config)
    dataset = ds.GeneratorDataset(source, ["image", "label"], shuffle=False, num_parallel_workers=1)
    first = augment.shift_and_flip(config) + augment.jitter(config)
    last, fill, rng = augment.normalise(config), augment.mean_colour(config), np.random.default_rng(seed)
    chains = [f"chain{number}" for number in range(policy.width if policy else 0)]
    if policy is None or not chains:
        middle = [augment.chain(policy, fill, rng)] if policy else []
        return dataset.map([*first, *middle, *last], "image", num_parallel_workers=workers)
    dataset = dataset.map(first, "image", num_parallel_workers=workers)
    for name in chains:
        dataset = dataset.map(ds.transforms.Duplicate(), "image", ["image", name])
        dataset = dataset.map([augment.chain(policy, fill, rng), *last], name, num_parallel_workers=workers)
    dataset = dataset.map(last, "image", num_parallel_workers=workers)
    return dataset.project(["image", "label", *chains])


def worker_threads(config: TrainConfig) -> int:
    """MindData rejects more threads than there are cores."""
    return min(config.num_parallel_workers, os.cpu_count() or 1)


class _Source:
    """The squares of an epoch's images in their order, for MindData; it ends at a broken image and keeps the `failure`.

    Prepares chunks ahead in its own threads: with MindData's (`num_parallel_workers` of GeneratorDataset), two workers
    made the pipeline 7 to 15 times slower than one (MindSpore 2.10, CIFAR-10).
    """

    def __init__(self, images: Images, order: NDArray[np.int64], config: TrainConfig, epoch: int) -> None:
        self._images, self._labels, self._workers = images, images.labels, worker_threads(config)
        self._config, self._spec, self._epoch = config, evaluation_spec(config), epoch
        self._chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
        self.failure: DataError | None = None

    def __deepcopy__(self, _: object) -> _Source:
        return self  # MindData copies its source, which here may hold all pixels of a data set

    def __iter__(self) -> Iterator[Row]:
        try:
            yield from self._rows()
        except DataError as error:  # raised here, it would reach the log as MindData's own, with a stack trace
            self.failure = error

    def _rows(self) -> Iterator[Row]:
        with ThreadPoolExecutor(self._workers) as pool:
            reading: deque[Future[list[Row]]] = deque()
            for chunk in self._chunks:
                reading.append(pool.submit(self._read, chunk))
                if len(reading) > self._workers:
                    yield from reading.popleft().result()
            while reading:
                yield from reading.popleft().result()

    def _read(self, chunk: NDArray[np.int64]) -> list[Row]:
        return [(self._square(int(index)), np.array(self._labels[index])) for index in chunk]

    def _square(self, index: int) -> NDArray[np.uint8]:
        return square(self._images, index, self._config, self._spec, self._epoch)


def evaluation_spec(config: TrainConfig) -> Preprocess:
    """The preprocessing of evaluation and, through the bundle, of the service."""
    return Preprocess(
        input_size=config.image_size,
        interpolation=config.interpolation,
        crop_pct=config.crop_pct,
        icc="srgb",
        mean=config.mean,
        std=config.std,
    )


@dataclass(frozen=True)
class Batch:
    """images float32 (B, 3, S, S), labels int32 (B,) or float32 (B, K); only the first `count` rows are real."""

    images: NDArray[np.float32]
    labels: NDArray[Any]
    count: int


def evaluation_batches(
    images: Images, spec: Preprocess, batch_size: int, workers: int, *, num_shards: int = 1, shard_id: int = 0
) -> Iterator[Batch]:
    """Every image once, in order; the last batch is filled up to `batch_size` with zeros.

    Shard `shard_id` of `num_shards` gets every num_shards-th image, so that the shards together count each image once.
    """
    mine, labels = range(shard_id, len(images), num_shards), images.labels
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(mine), batch_size):
            chunk = mine[start : start + batch_size]
            batch = Batch(
                np.zeros((batch_size, 3, spec.input_size, spec.input_size), np.float32),
                np.zeros((batch_size, *labels.shape[1:]), labels.dtype),
                len(chunk),
            )
            batch.labels[: len(chunk)] = labels[chunk]
            for row, tensor in enumerate(pool.map(lambda index: tensor_of(images, index, spec), chunk)):
                batch.images[row] = tensor
            yield batch
