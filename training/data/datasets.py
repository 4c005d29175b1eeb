"""The images of a split, read in the layout in which they are published.

1. `set` names the layout: image folders `<split>/<class>/<image>`, or a table or published files of data.layouts;
2. classes are checked against num_classes if that is given, and those of val against those of train;
3. with `holdout`, images split off from train take the place of val during the run;
4. a missing folder, an empty class and a broken image are DataErrors that name the path.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.preprocess import SUFFIXES, images_in
from training.config import TrainConfig
from training.data.images import ImageFolder, Images
from training.data.layouts.published import Split, cifar10, cifar100, fashion_mnist, tiny_imagenet
from training.data.layouts.tables import open_table
from training.data.names import check_same_classes, class_folders, listed
from training.errors import DataError
from training.storage import modelarts

__all__ = ["ImageFolder", "Images", "held_out", "open_split", "open_splits", "scan"]


def open_splits(config: TrainConfig) -> tuple[Images, Images]:
    """The images to train on, and those that a run evaluates; both have the same classes. Raises TrainingError.

    A run evaluates val or, with `holdout`, that many images of train, which it then does not train on.
    """
    train = open_split(config, "train")
    if config.holdout:
        return _split_off(train, config)
    val = _open(config, "val")
    check_same_classes(train.classes, val.classes, val.root)
    return train, val


def open_split(config: TrainConfig, split: Split) -> Images:
    """The images of `data_url` in the layout that the key `set` names. Raises TrainingError."""
    images = _open(config, split)
    count = len(images.classes)
    if count == 1 and config.labels == "single":
        raise DataError(f"{images.root} has only one class, {images.classes[0]}: a classifier needs at least two")
    if config.num_classes not in (None, count):
        # If only val is open, either number may be the wrong one.
        advice = f": give num_classes {count}" if split == "train" else ""
        raise DataError(f"{images.root} has {count} classes, but num_classes is {config.num_classes}{advice}")
    return images


def _split_off(train: Images, config: TrainConfig) -> tuple[Images, Images]:
    labels, classes = train.labels, len(train.classes)
    chosen = held_out(labels, config.holdout, config.seed)
    rest = np.delete(np.arange(len(train)), chosen)
    if bare := np.flatnonzero(np.bincount(labels[rest], minlength=classes) == 0).tolist():
        raise DataError(
            f"holdout {config.holdout} of the {len(train)} images of {train.root} leaves no image to train on for "
            f"{listed(train.classes[class_id] for class_id in bare)}: give a smaller holdout"
        )
    return train.subset(rest.tolist()), train.subset(chosen.tolist())


def held_out(labels: NDArray[np.int32], count: int, seed: int) -> NDArray[np.int64]:
    """`count` sorted indices (or all), drawn by `seed` in proportion to the classes, each share rounded down or up."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    # Every (N / count)-th image of a list sorted by class: the share of each class is off by less than one image.
    count = min(count, len(labels))
    ends = np.arange(1, count + 1) * len(labels) // max(1, count)
    return np.sort(by_class[ends - 1])


def _open(config: TrainConfig, split: Split) -> Images:
    root = modelarts.local_folder(config.data_url, config.cache_dir)
    if config.set == "CSV":
        return open_table(root, split, multi=config.labels == "multi")
    return _LAYOUTS[config.set](root, split)


def scan(root: Path, num_classes: int) -> ImageFolder:
    """List an image folder. Raises DataError for a missing folder, an empty class or another number of classes."""
    folder = _scan(root, "it must hold one folder for each class")
    if len(folder.classes) != num_classes:
        raise DataError(f"{root} has {len(folder.classes)} class folders, but there are {num_classes} classes")
    return folder


def _scan(root: Path, advice: str) -> ImageFolder:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: {advice}")
    folders = class_folders(root)
    if not folders:
        raise DataError(f"{root} has no class folders: the images of each class belong in {root}/<class>/")
    images = []
    for class_id, folder in enumerate(folders.values()):
        files = sorted(images_in(folder))
        if not files:
            raise DataError(f"{folder} has no image ({', '.join(sorted(SUFFIXES))})")
        images += [(path, class_id) for path in files]
    return ImageFolder(root, tuple(folders), tuple(images))


def _image_folder(data_url: Path, split: Split) -> Images:
    return _scan(data_url / split, "--data_url must hold train/<class>/* and val/<class>/*")


_LAYOUTS: dict[str, Callable[[Path, Split], Images]] = {
    "ImageNet": _image_folder,
    "ImageFolder": _image_folder,
    "CIFAR10": cifar10,
    "CIFAR100": cifar100,
    "FashionMNIST": fashion_mnist,
    "TinyImageNet": tiny_imagenet,
}
