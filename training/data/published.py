"""CIFAR-10, CIFAR-100 and Fashion-MNIST, read from their publishers' files.

1. CIFAR binary files and idx files (gzipped or not) are read as published;
2. a missing file, a wrong size or a wrong magic is a DataError that names the file.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.manifest import Icc, Preprocess
from training.data.images import square_of
from training.errors import DataError
from training.files import read_whole

Split = Literal["train", "val"]

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """`arrays` is uint8 (N, H, W, 3), or (N, H, W) for grey images."""

    root: Path
    classes: tuple[str, ...]
    arrays: NDArray[np.uint8]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.arrays)

    def name(self, index: int) -> str:
        return f"image {index} of {self.root}"

    def picture(self, index: int, icc: Icc) -> Image.Image:
        image = self.arrays[index]
        return Image.fromarray(image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2))

    def kept_picture(self, index: int, icc: Icc) -> Image.Image:
        return self.picture(index, icc)

    def kept_square(self, index: int, spec: Preprocess) -> NDArray[np.uint8]:
        return square_of(self, index, spec)


def cifar10(data_url: Path, split: Split) -> ImageArrays:
    """Records of 1 label and 3 x 32 x 32 pixels (Krizhevsky 2009, "Learning Multiple Layers of Features...")."""
    folder = _inner(data_url, "cifar-10-batches-bin")
    files = [f"data_batch_{number}.bin" for number in range(1, 6)] if split == "train" else ["test_batch.bin"]
    return _cifar(folder, files, label_bytes=1, names="batches.meta.txt")


def cifar100(data_url: Path, split: Split) -> ImageArrays:
    """Records of a coarse label, a fine label (the class) and the pixels."""
    folder = _inner(data_url, "cifar-100-binary")
    file = "train.bin" if split == "train" else "test.bin"
    return _cifar(folder, [file], label_bytes=2, names="fine_label_names.txt")


def _cifar(folder: Path, files: list[str], *, label_bytes: int, names: str) -> ImageArrays:
    classes = tuple(read_whole(folder / names).decode(errors="replace").split())
    if not classes:
        raise DataError(f"{folder / names} contains no class name")
    parts = [_cifar_records(folder / file, label_bytes, len(classes)) for file in files]
    records = np.concatenate(parts)
    pixels = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return ImageArrays(folder, classes, np.ascontiguousarray(pixels), records[:, label_bytes - 1].astype(np.int32))


def _cifar_records(path: Path, label_bytes: int, num_classes: int) -> NDArray[np.uint8]:
    """-> uint8 (N, label_bytes + 3072)."""
    found, size = read_whole(path), label_bytes + 3 * 32 * 32
    if not found or len(found) % size:
        raise DataError(f"{path} has {len(found)} bytes, which is not a multiple of the record size of {size} bytes")
    records = np.frombuffer(found, np.uint8).reshape(-1, size)
    _check_labels(path, records[:, label_bytes - 1], num_classes)
    return records


def fashion_mnist(data_url: Path, split: Split) -> ImageArrays:
    """idx files of 28 x 28 grey images (Xiao et al. 2017, arXiv:1708.07747)."""
    prefix = "train" if split == "train" else "t10k"
    pixels = _idx(data_url, f"{prefix}-images-idx3-ubyte", dimensions=3)
    labels = _idx(data_url, f"{prefix}-labels-idx1-ubyte", dimensions=1)
    if len(pixels) != len(labels):
        raise DataError(f"{data_url} has {len(pixels)} {prefix} images but {len(labels)} labels")
    _check_labels(data_url / f"{prefix}-labels-idx1-ubyte", labels, len(FASHION_MNIST_CLASSES))
    return ImageArrays(data_url, FASHION_MNIST_CLASSES, pixels, labels.astype(np.int32))


def _idx(folder: Path, name: str, *, dimensions: int) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes: magic 0, 0, 8, number of dimensions; each dimension big-endian; the bytes."""
    path = folder / name
    if not path.is_file() and (folder / f"{name}.gz").is_file():
        path = folder / f"{name}.gz"
    found = _gunzip(path, read_whole(path)) if path.suffix == ".gz" else read_whole(path)
    magic, header = bytes([0, 0, 8, dimensions]), 4 + 4 * dimensions
    if found[:4] != magic or len(found) < header:
        raise DataError(f"{path} does not start as an idx file does: magic {found[:4].hex()} instead of {magic.hex()}")
    shape = tuple(int(size) for size in np.frombuffer(found, ">u4", dimensions, 4))
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(found) != expected:
        raise DataError(f"{path} has {len(found)} bytes, its header promises {expected} (shape {shape})")
    return np.frombuffer(found, np.uint8, offset=header).reshape(shape)


def _gunzip(path: Path, compressed: bytes) -> bytes:
    try:
        return gzip.decompress(compressed)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a complete gzip file: {error}") from error


def _check_labels(path: Path, labels: NDArray[np.uint8], num_classes: int) -> None:
    if labels.size and labels.max() >= num_classes:
        raise DataError(f"{path} has the label {labels.max()}, but there are {num_classes} classes")


def _inner(data_url: Path, published: str) -> Path:
    """The publisher's folder, whether `data_url` is that folder or its parent."""
    return data_url / published if (data_url / published).is_dir() else data_url
