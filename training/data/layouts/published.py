"""CIFAR-10, CIFAR-100, Fashion-MNIST and Tiny ImageNet, read from their publishers' files.

1. CIFAR binary files, idx files (gzipped or not) and Tiny ImageNet's folders are read as published;
2. a missing file, a wrong size, a wrong magic or an unknown line is a DataError that names the file.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.manifest import Icc, Preprocess
from models.preprocess import images_in
from training.data.images import ImageFolder, square_of
from training.data.names import check_labels, listed, printable
from training.errors import DataError
from training.storage.files import read_whole
from weights.labels import IMAGENET_LABELS

Split = Literal["train", "val"]
IMAGENET_WNIDS = Path(__file__).parent / "imagenet_wnids.txt"  # in the order of weights/imagenet_labels.txt

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

    def subset(self, indices: Sequence[int]) -> ImageArrays:
        chosen = np.asarray(indices, np.int64)
        return ImageArrays(self.root, self.classes, self.arrays[chosen], self.labels[chosen])


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
    content, size = read_whole(path), label_bytes + 3 * 32 * 32
    if not content or len(content) % size:
        raise DataError(f"{path} has {len(content)} bytes, which is not a multiple of the record size of {size} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
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
    content = _gunzip(path, read_whole(path)) if path.suffix == ".gz" else read_whole(path)
    magic, header = bytes([0, 0, 8, dimensions]), 4 + 4 * dimensions
    if content[:4] != magic or len(content) < header:
        raise DataError(f"{path} is not the expected idx file: magic {content[:4].hex()} instead of {magic.hex()}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise DataError(f"{path} has {len(content)} bytes, but its header promises {expected} (shape {shape})")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _gunzip(path: Path, compressed: bytes) -> bytes:
    try:
        return gzip.decompress(compressed)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a complete gzip file: {error}") from error


def _check_labels(path: Path, labels: NDArray[np.uint8], num_classes: int) -> None:
    if labels.size and labels.max() >= num_classes:
        raise DataError(f"{path} has the label {labels.max()}, but there are {num_classes} classes")


def tiny_imagenet(data_url: Path, split: Split) -> ImageFolder:
    """64 x 64 JPEGs of 200 ImageNet classes (Stanford's CS231n 2015), named as ImageNet names their WordNet ids."""
    folder = _inner(data_url, "tiny-imagenet-200")
    ids = _wordnet_ids(folder / "wnids.txt")
    names = imagenet_names()
    if unknown := [wnid for wnid in ids if wnid not in names]:
        raise DataError(f"{folder / 'wnids.txt'} lists ids that are not in ImageNet-1k: {listed(unknown)}")
    classes = tuple(names[wnid] for wnid in ids)
    check_labels(classes, folder / "wnids.txt")
    read = _tiny_imagenet_train if split == "train" else _tiny_imagenet_val
    return ImageFolder(folder / split, classes, tuple(read(folder / split, {wnid: k for k, wnid in enumerate(ids)})))


def imagenet_names() -> dict[str, str]:
    """WordNet id -> class name, for the classes of ImageNet-1k in their order."""
    ids, names = (
        [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        for path in (IMAGENET_WNIDS, IMAGENET_LABELS)
    )
    return dict(zip(ids, names, strict=True))


def _wordnet_ids(path: Path) -> list[str]:
    """The ids of the classes, sorted as in ImageNet; the file has another order."""
    ids = sorted(read_whole(path).decode(errors="replace").split())
    if not ids:
        raise DataError(f"{path} contains no class")
    return ids


def _tiny_imagenet_train(folder: Path, class_ids: Mapping[str, int]) -> list[tuple[Path, int]]:
    """The images of train/<WordNet id>/images/, by class and name."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    if unknown := sorted({path.name for path in folder.iterdir() if path.is_dir()} - {*class_ids}):
        raise DataError(f"{folder} has folders that wnids.txt does not list: {listed(unknown)}")
    images = []
    for wnid, class_id in class_ids.items():
        files = folder / wnid / "images"
        paths = sorted(images_in(files)) if files.is_dir() else []
        if not paths:
            raise DataError(f"{files} has no image")
        images += [(path, class_id) for path in paths]
    return images


def _tiny_imagenet_val(folder: Path, class_ids: Mapping[str, int]) -> list[tuple[Path, int]]:
    """The images of val/images/ by their lines `file, WordNet id, box` in val_annotations.txt, in its order."""
    annotations, files = folder / "val_annotations.txt", folder / "images"
    images: dict[str, int] = {}
    for number, line in enumerate(read_whole(annotations).decode(errors="replace").splitlines(), start=1):
        name, wnid = (*line.split("\t"), "", "")[:2]
        if wnid not in class_ids or name in images:
            problem = "repeats an image" if name in images else "names no class of wnids.txt"
            raise DataError(f"{annotations}, line {number} {problem}: {printable(line)}")
        images[name] = class_ids[wnid]
    if not images:
        raise DataError(f"{annotations} contains no image")
    present = {path.name for path in images_in(files)} if files.is_dir() else set()
    for problem, names in (("lacks", {*images} - present), ("has no line for", present - {*images})):
        if names:
            where = files if problem == "lacks" else annotations
            raise DataError(f"{where} {problem} {listed(sorted(names))}")
    return [(files / name, class_id) for name, class_id in images.items()]


def _inner(data_url: Path, published: str) -> Path:
    """The publisher's folder, whether `data_url` is that folder or its parent."""
    return data_url / published if (data_url / published).is_dir() else data_url
