"""The images of a split, in the layouts in which they are published.

1. `set` names the layout: image folders `<split>/<class>/<image>`, or the files of training.data.published;
2. classes are checked against num_classes, and every image file is read before a run;
3. a missing folder, an empty class and a broken image are DataErrors that name the path.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from models.errors import ImageError
from models.preprocess import SUFFIXES, decode, images_in, open_image, read_pixels
from training.config import TrainConfig
from training.data import modelarts
from training.data.published import Split, cifar10, cifar100, fashion_mnist
from training.errors import DataError
from training.files import read_whole


class Images(Protocol):
    """`root` is for messages; class ids count `classes`; `labels` is int32 (N,)."""

    @property
    def root(self) -> Path: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> NDArray[np.int32]: ...

    def __len__(self) -> int: ...

    def stored(self, index: int) -> NDArray[np.uint8]:
        """What training reads: an encoded image (bytes,), or decoded RGB (H, W, 3). Raises DataError."""

    def picture(self, index: int) -> Image.Image:
        """What evaluation reads: an upright RGB image, as models.preprocess.read_pixels has it. Raises DataError."""


@dataclass(frozen=True)
class ImageFolder:
    """`images` holds (path, class id)."""

    root: Path
    classes: tuple[str, ...]
    images: tuple[tuple[Path, int], ...]

    @property
    def labels(self) -> NDArray[np.int32]:
        return np.array([class_id for _, class_id in self.images], np.int32)

    def __len__(self) -> int:
        return len(self.images)

    def stored(self, index: int) -> NDArray[np.uint8]:
        return np.frombuffer(read_whole(self.images[index][0]), np.uint8)

    def picture(self, index: int) -> Image.Image:
        path = self.images[index][0]
        try:
            return read_pixels(open_image(read_whole(path)))
        except ImageError as error:
            raise DataError(f"{path}: {error.detail}") from error


def open_split(config: TrainConfig, split: Split) -> Images:
    """The images of `data_url` in the layout that the key `set` names. Raises TrainingError."""
    images = _LAYOUTS[config.set](modelarts.local_folder(config.data_url, config.cache_dir), split)
    found = len(images.classes)
    if found == 1:
        raise DataError(
            f"{images.root} has one class only, {images.classes[0]}: a network learns to tell two or more apart"
        )
    if found != config.num_classes:
        raise DataError(
            f"{images.root} has {found} classes, num_classes is {config.num_classes}: give num_classes {found}"
        )
    return images


def scan(root: Path, num_classes: int) -> ImageFolder:
    """List an image folder. Raises DataError for a missing folder, an empty class or another number of classes."""
    folder = _scan(root)
    if len(folder.classes) != num_classes:
        raise DataError(f"{root} has {len(folder.classes)} class folders, num_classes is {num_classes}")
    return folder


def _scan(root: Path) -> ImageFolder:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: --data_url must hold train/<class>/* and val/<class>/*")
    classes = tuple(
        sorted(folder.name for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    )
    images = []
    for class_id, name in enumerate(classes):
        files = sorted(images_in(root / name))
        if not files:
            raise DataError(f"{root / name} holds no image ({', '.join(sorted(SUFFIXES))})")
        images += [(path, class_id) for path in files]
    return ImageFolder(root, classes, tuple(images))


def verify(
    images: Images, how: Literal["headers", "pixels"], workers: int, *, num_shards: int = 1, shard_id: int = 0
) -> None:
    """Read every image file of a shard before the run starts. Raises DataError that lists the broken ones.

    MindData's decoder fills a truncated image with grey and dies of SIGFPE on a truncated header (MindSpore 2.10).
    Decoded arrays have nothing that could be broken.
    """
    if not isinstance(images, ImageFolder):
        return
    read: Callable[[bytes], object] = open_image if how == "headers" else decode

    def problem(item: tuple[Path, int]) -> str | None:
        try:
            read(read_whole(item[0]))
        except ImageError as error:
            return f"{item[0]}: {error.detail}"
        except DataError as error:
            return str(error)
        return None

    mine = images.images[shard_id::num_shards]
    with ThreadPoolExecutor(workers) as pool:
        results = tqdm(
            pool.map(problem, mine), "verify images", len(mine), leave=False, disable=True if shard_id else None
        )
        broken = [text for text in results if text]
    if broken:
        listed = "\n  ".join(broken[:10]) + ("" if len(broken) <= 10 else f"\n  and {len(broken) - 10} more")
        raise DataError(f"{len(broken)} broken images in {images.root}; remove or replace them:\n  {listed}")


def _image_folder(data_url: Path, split: Split) -> Images:
    return _scan(data_url / split)


_LAYOUTS: dict[str, Callable[[Path, Split], Images]] = {
    "ImageNet": _image_folder,
    "ImageFolder": _image_folder,
    "CIFAR10": cifar10,
    "CIFAR100": cifar100,
    "FashionMNIST": fashion_mnist,
}
