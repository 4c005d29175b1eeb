"""A set of images as the rest of training sees it, whatever its layout, and how its pixels are made.

1. every pixel comes from models.preprocess, which the service uses too;
2. a file is decoded once per run if its pixels fit in memory;
3. a broken image is a DataError that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import ImageError
from models.manifest import Icc, Preprocess
from models.pixels.color import to_srgb
from models.preprocess import open_image, read_file, read_pixels, resize_and_crop, to_tensor
from training.data.names import printable
from training.errors import DataError

T = TypeVar("T", bound=NDArray[Any] | Image.Image)
KEPT_BYTES = 512 * 2**20  # of pixels in memory, for each split and process: all of CIFAR-10 takes 150 MiB


class Images(Protocol):
    """`root` is for messages; a class id is an index into `classes`; `labels` is int32 (N,) or, where several may
    apply, float32 (N, K)."""

    @property
    def root(self) -> Path: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> NDArray[Any]: ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The image's name in messages."""

    def picture(self, index: int, icc: Icc) -> Image.Image:
        """The upright RGB image, in the colours of the file: see `in_colours`. Raises DataError."""

    def kept_picture(self, index: int, icc: Icc) -> Image.Image:
        """The same, from memory where it is kept."""

    def kept_square(self, index: int, spec: Preprocess) -> NDArray[np.uint8]:
        """RGB (S, S, 3): what `spec` cuts from the picture, from memory where it is kept. Raises DataError."""

    def subset(self, indices: Sequence[int]) -> Images:
        """Only these images, in this order; the classes stay the same."""


def square_of(images: Images, index: int, spec: Preprocess) -> NDArray[np.uint8]:
    """RGB (S, S, 3). Raises DataError."""
    return _of_picture(images, index, spec, lambda picture: in_colours(resize_and_crop(picture, spec), spec.icc))


def in_colours(image: Image.Image, icc: Icc) -> NDArray[np.uint8]:
    """A resized picture -> RGB (H, W, 3), its colour profile applied or ignored; after the resize, as in to_tensor."""
    return np.asarray(to_srgb(image) if icc == "srgb" else image)


def tensor_of(images: Images, index: int, spec: Preprocess) -> NDArray[np.float32]:
    """float32 (3, S, S), as the service makes it. Raises DataError."""
    return _of_picture(images, index, spec, lambda picture: to_tensor(picture, spec))


def _of_picture(images: Images, index: int, spec: Preprocess, make: Callable[[Image.Image], T]) -> T:
    picture = images.picture(index, spec.icc)
    try:
        return make(picture)
    except ImageError as error:  # too long and thin to be resized
        raise DataError(f"{images.name(index)}: {error.detail}") from error


class Kept:
    """Pictures and squares kept in memory, at most `most_bytes` of them in total."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._values: dict[Hashable, Any] = {}
        self._bytes_left = most_bytes
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value kept under this key, or else the result of `make`."""
        if key in self._values:
            kept: T = self._values[key]
            return kept
        value = make()
        size = _bytes(value)
        with self._lock:
            if key not in self._values and size <= self._bytes_left:
                self._values[key] = value
                self._bytes_left -= size
        return value


def _bytes(value: NDArray[Any] | Image.Image) -> int:
    """In memory; Pillow stores four bytes for an RGB pixel."""
    return 4 * value.width * value.height if isinstance(value, Image.Image) else value.nbytes


@dataclass(frozen=True)
class ImageFolder:
    """`images` holds (path, class id)."""

    root: Path
    classes: tuple[str, ...]
    images: tuple[tuple[Path, int], ...]
    kept: Kept = field(default_factory=Kept, compare=False, repr=False)

    @property
    def labels(self) -> NDArray[Any]:
        return np.array([class_id for _, class_id in self.images], np.int32)

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return printable(self.images[index][0])

    def picture(self, index: int, icc: Icc) -> Image.Image:
        try:
            return read_pixels(open_image(read_file(self.images[index][0])), icc=icc)
        except ImageError as error:
            raise DataError(f"{self.name(index)}: {error.detail}") from error
        except OSError as error:
            raise DataError(f"{self.name(index)} cannot be read: {error.strerror}") from error

    def kept_picture(self, index: int, icc: Icc) -> Image.Image:
        return self.kept.get((index, icc), lambda: self.picture(index, icc))

    def kept_square(self, index: int, spec: Preprocess) -> NDArray[np.uint8]:
        return self.kept.get((index, spec), lambda: square_of(self, index, spec))

    def subset(self, indices: Sequence[int]) -> ImageFolder:
        return ImageFolder(self.root, self.classes, tuple(self.images[index] for index in indices))
