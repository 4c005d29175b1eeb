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
from training import policies
from training.config import TrainConfig
from training.datasets import SUFFIXES, ImageFolder, Images, open_split, scan, verify
from training.errors import DataError
from training.mixing import Mixing, erase, mix_chains

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
    """One epoch of {"image": float32 (B, 3, S, S), "label": ...} tensors; an incomplete batch is left out.

    "label" is int32 (B,), or with MixUp or CutMix float32 (B, K), the share of each class, without label smoothing.
    The same (seed, epoch, shard, number of workers) gives the same batches. Raises DataError.
    """
    import mindspore.dataset as ds  # takes seconds: not for --help

    order = epoch_order(images, config, epoch, num_shards=num_shards, shard_id=shard_id)
    source, seed = _Source(images, order), (config.seed, epoch, shard_id)
    ds.config.set_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    dataset = _augmented(source, config, encoded=isinstance(images, ImageFolder))
    changes = _BatchChanges(config, seed)
    if changes.any:
        dataset = dataset.batch(
            config.batch_size, drop_remainder=True, per_batch_map=changes, output_columns=["image", "label"]
        )
    else:
        dataset = dataset.batch(config.batch_size, drop_remainder=True)
    try:
        yield from dataset.create_dict_iterator(num_epochs=1)
    except RuntimeError as error:
        source.explain()
        cause = re.search(r"\[ERROR\] (.*)", str(error))
        raise DataError(f"MindData: {cause[1] if cause else error}") from error


def _augmented(source: _Source, config: TrainConfig, *, encoded: bool) -> Any:
    """-> dataset of the columns image and label, and a column for each chain of AugMix."""
    import mindspore.dataset as ds

    from training import augment

    workers = min(config.num_parallel_workers, os.cpu_count() or 1)  # MindData refuses more than there are cores
    # threads: for processes, MindData would copy the source
    dataset = ds.GeneratorDataset(
        source, ["image", "label"], shuffle=False, num_parallel_workers=workers, python_multiprocessing=False
    )
    policy = policies.parse(config.auto_augment) if config.auto_augment else None
    chain = augment.chain(policy, config) if policy else []
    chains = [f"chain{number}" for number in range(policy.width if policy else 0)]
    first = augment.crop_and_flip(config, encoded=encoded) + augment.jitter(config)
    if not chains:
        return dataset.map([*first, *chain, *augment.normalise(config)], "image", num_parallel_workers=workers)
    dataset = dataset.map(first, "image", num_parallel_workers=workers)
    for name in chains:
        dataset = dataset.map(ds.transforms.Duplicate(), "image", ["image", name])
    for name, operations in (("image", []), *((name, chain) for name in chains)):
        dataset = dataset.map([*operations, *augment.normalise(config)], name, num_parallel_workers=workers)
    return dataset.project(["image", "label", *chains])


class _BatchChanges:
    """What is done to whole batches; its randomness depends on the seed and the batch's number only."""

    def __init__(self, config: TrainConfig, seed: tuple[int, ...]) -> None:
        self._config, self._seed = config, seed
        self._policy = policies.parse(config.auto_augment) if config.auto_augment else None
        self._mixing = Mixing(config.mix_up, config.cutmix, config.mixup_prob, config.switch_prob, config.mixup_mode)
        self.any = bool(self._policy and self._policy.width) or config.re_prob > 0 or self._mixing.on

    def __call__(self, *columns: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Lists of images, labels and chains, and MindData's description of the batch -> images, labels."""
        *rows, batch = columns
        images, labels = np.stack(rows[0]), np.stack(rows[1])
        config, rng = self._config, np.random.default_rng((*self._seed, batch.get_batch_num()))
        if self._policy and self._policy.width:
            images = mix_chains(images, np.stack([np.stack(chain) for chain in rows[2:]]), self._policy.alpha, rng)
        erase(images, config.re_prob, config.re_mode, config.re_count, rng)
        if self._mixing.on:
            return self._mixing(images, labels, config.num_classes, rng)
        return images, labels


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
