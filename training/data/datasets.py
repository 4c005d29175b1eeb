"""The images of a split, in the layouts in which they are published.

1. `set` names the layout: image folders `<split>/<class>/<image>`, or the files of training.data.published;
2. classes are checked against num_classes, and those of val against those of train;
3. a missing folder, an empty class and a broken image are DataErrors that name the path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import ImageError
from models.manifest import Icc, Preprocess
from models.preprocess import SUFFIXES, images_in, open_image, read_pixels
from training.config import TrainConfig
from training.data import modelarts
from training.data.images import Images, Kept, square_of
from training.data.names import check_same_classes, class_folders, printable
from training.data.published import Split, cifar10, cifar100, fashion_mnist
from training.errors import DataError
from training.files import read_whole

__all__ = ["ImageFolder", "Images", "open_split", "open_splits", "scan"]


@dataclass(frozen=True)
class ImageFolder:
    """`images` holds (path, class id)."""

    root: Path
    classes: tuple[str, ...]
    images: tuple[tuple[Path, int], ...]
    kept: Kept = field(default_factory=Kept, compare=False, repr=False)

    @property
    def labels(self) -> NDArray[np.int32]:
        return np.array([class_id for _, class_id in self.images], np.int32)

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return printable(self.images[index][0])

    def picture(self, index: int, icc: Icc) -> Image.Image:
        try:
            return read_pixels(open_image(read_whole(self.images[index][0])), icc=icc)
        except ImageError as error:
            raise DataError(f"{self.name(index)}: {error.detail}") from error

    def kept_picture(self, index: int, icc: Icc) -> Image.Image:
        return self.kept.get((index, icc), lambda: self.picture(index, icc))

    def kept_square(self, index: int, spec: Preprocess) -> NDArray[np.uint8]:
        return self.kept.get((index, spec), lambda: square_of(self, index, spec))


def open_splits(config: TrainConfig) -> tuple[Images, Images]:
    """The images of train and of val, which have the same classes. Raises TrainingError."""
    train = open_split(config, "train")
    val = _open(config, "val")
    check_same_classes(train.classes, val.classes, val.root)
    return train, val


def open_split(config: TrainConfig, split: Split) -> Images:
    """The images of `data_url` in the layout that the key `set` names. Raises TrainingError."""
    images = _open(config, split)
    found = len(images.classes)
    if found == 1:
        raise DataError(
            f"{images.root} has one class only, {images.classes[0]}: a network learns to tell two or more apart"
        )
    if found != config.num_classes:
        # Of val alone it is not known which of the two is wrong.
        advice = f": give num_classes {found}" if split == "train" else ""
        raise DataError(f"{images.root} has {found} classes, num_classes is {config.num_classes}{advice}")
    return images


def _open(config: TrainConfig, split: Split) -> Images:
    return _LAYOUTS[config.set](modelarts.local_folder(config.data_url, config.cache_dir), split)


def scan(root: Path, num_classes: int) -> ImageFolder:
    """List an image folder. Raises DataError for a missing folder, an empty class or another number of classes."""
    folder = _scan(root, "it must hold one folder for each class")
    if len(folder.classes) != num_classes:
        raise DataError(f"{root} has {len(folder.classes)} class folders, there are {num_classes} classes")
    return folder


def _scan(root: Path, advice: str) -> ImageFolder:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: {advice}")
    folders = class_folders(root)
    if not folders:
        raise DataError(f"{root} holds no class folders: the images of each class belong in {root}/<class>/")
    images = []
    for class_id, folder in enumerate(folders.values()):
        files = sorted(images_in(folder))
        if not files:
            raise DataError(f"{folder} holds no image ({', '.join(sorted(SUFFIXES))})")
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
}
