"""What a set of images is to the rest of training, whatever its layout, and how its pixels are made.

1. every pixel comes from models.preprocess, the code that serves;
2. pixels are made once a run where they fit in memory;
3. a broken image is a DataError that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import ImageError
from models.manifest import Preprocess
from models.preprocess import resize_and_crop, to_tensor
from training.errors import DataError

T = TypeVar("T")
KEPT_BYTES = 512 * 2**20  # of pixels in memory, for each split and process: all of CIFAR-10 takes 150 MiB


class Images(Protocol):
    """`root` is for messages; class ids count `classes`; `labels` is int32 (N,)."""

    @property
    def root(self) -> Path: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> NDArray[np.int32]: ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What messages call the image."""

    def picture(self, index: int) -> Image.Image:
        """The upright RGB image. Raises DataError."""

    def pixels(self, index: int, spec: Preprocess | None) -> NDArray[np.uint8]:
        """RGB: the whole picture (H, W, 3), or the square (S, S, 3) that `spec` cuts from it. Raises DataError."""


def pixels_of(images: Images, index: int, spec: Preprocess | None) -> NDArray[np.uint8]:
    """As `Images.pixels`, made anew."""
    return _of_picture(images, index, lambda picture: np.asarray(resize_and_crop(picture, spec) if spec else picture))


def tensor_of(images: Images, index: int, spec: Preprocess) -> NDArray[np.float32]:
    """float32 (3, S, S), as the service makes it. Raises DataError."""
    return _of_picture(images, index, lambda picture: to_tensor(picture, spec))


def _of_picture(images: Images, index: int, make: Callable[[Image.Image], T]) -> T:
    picture = images.picture(index)
    try:
        return make(picture)
    except ImageError as error:  # too long and thin to be resized
        raise DataError(f"{images.name(index)}: {error.detail}") from error


class Kept:
    """Pixels of images, kept in memory as long as all of them together have at most `most_bytes`."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._arrays: dict[tuple[int, Preprocess | None], NDArray[np.uint8]] = {}
        self._bytes_left = most_bytes
        self._lock = Lock()

    def get(self, index: int, spec: Preprocess | None, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """What is kept for this image and spec, else what `make` returns."""
        key = (index, spec)
        array = self._arrays.get(key)
        if array is None:
            array = make()
            with self._lock:
                if key not in self._arrays and array.nbytes <= self._bytes_left:
                    self._arrays[key] = array
                    self._bytes_left -= array.nbytes
        return array
