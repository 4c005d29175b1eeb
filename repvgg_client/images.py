"""Turns paths, bytes, Pillow images and arrays into batches of encoded images.

1. encoded images are sent unchanged, pixels as PNG, which is lossless;
2. a folder stands for the images that the server's own tools would find in it, in order of their names;
3. at most one batch is in memory besides those that are being sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray

    # A path of a file or folder, an encoded image, a Pillow image, or RGB pixels of shape (H, W, 3).
    Image: TypeAlias = str | os.PathLike[str] | bytes | PIL.Image.Image | NDArray[np.uint8]
else:
    Image = Any

# A quarter of the server's default limit for one request.
MAX_BATCH_BYTES = 8 << 20
SUFFIXES = frozenset([".apng", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"])
# Pillow's modes that PNG can hold.
_PNG_MODES = frozenset({"1", "L", "LA", "P", "I;16", "RGB", "RGBA"})


@dataclass(frozen=True)
class Encoded:
    name: str | None
    content: bytes


def batches(images: Image | Iterable[Image], size: int) -> Iterator[list[Encoded]]:
    """At most `size` images and MAX_BATCH_BYTES per batch; an image larger than that gets its own batch."""
    batch: list[Encoded] = []
    for image in encode_all(images):
        if batch and (len(batch) == size or sum(len(each.content) for each in [*batch, image]) > MAX_BATCH_BYTES):
            yield batch
            batch = []
        batch.append(image)
    if batch:
        yield batch


def encode_all(images: Image | Iterable[Image]) -> Iterator[Encoded]:
    """One image or many, or folders of images. Raises OSError, and TypeError or ValueError for any other object."""
    if isinstance(images, str | os.PathLike | bytes) or hasattr(images, "getexif") or getattr(images, "ndim", 0) == 3:
        images = [cast("Image", images)]
    for image in images:
        if not isinstance(image, str | os.PathLike):
            yield Encoded(None, image if isinstance(image, bytes) else _png(image))
        else:
            yield from (Encoded(str(path), path.read_bytes()) for path in _files(Path(image)))


def _files(path: Path) -> list[Path]:
    """The file itself, or the images in a folder at any depth, without hidden files and folders."""
    if not path.is_dir():
        return [path]
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.is_file()
    ]
    if not files:
        raise ValueError(f"there are no images in the folder {path}")
    return files


def _png(image: PIL.Image.Image | NDArray[np.uint8]) -> bytes:
    """Keeps the EXIF orientation of a Pillow image, which the server applies."""
    from PIL import Image  # an optional dependency

    if not isinstance(image, Image.Image):
        shape, dtype = tuple(getattr(image, "shape", ())), getattr(image, "dtype", type(image).__name__)
        if len(shape) != 3 or shape[-1] != 3 or dtype != "uint8":
            raise TypeError(f"pixels must be uint8 of shape (H, W, 3), RGB, not {dtype} of shape {shape}")
        image = Image.fromarray(image)
    if image.mode in ("I", "F"):
        raise ValueError(f"an image of mode {image.mode} does not define which value is white: convert it to RGB")
    exif = image.getexif()
    encoded = BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(encoded, "PNG", compress_level=1, exif=exif)
    return encoded.getvalue()
