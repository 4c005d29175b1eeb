"""Pictures of a few pixels in many formats, for the tests of preprocessing."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.manifest import Preprocess
from models.preprocess import (
    decode,
)

Pixels = NDArray[Any]


def encode(image: Image.Image | Pixels, format_: str, **options: Any) -> bytes:
    file = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format_, **options)
    return file.getvalue()


def noise(height: int, width: int, *channels: int, dtype: type = np.uint8) -> Pixels:
    shape = (height, width, *channels)
    return np.random.default_rng(5).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def pixels(encoded: bytes) -> list[Any]:
    return np.asarray(decode(encoded)).tolist()


def spec(input_size: int = 8, crop_pct: float = 1.0, **others: Any) -> Preprocess:
    half = (0.5, 0.5, 0.5)
    values = {"interpolation": "bicubic", "mean": half, "std": half} | others
    return Preprocess(input_size=input_size, crop_pct=crop_pct, **values)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(bits: int, colour: int, row: bytes, *more: bytes, width: int = 2, height: int = 1) -> bytes:
    """A PNG put together by hand, for what Pillow cannot write; colour 0 grey, 2 RGB, 3 palette, 4 LA, 6 RGBA."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress((b"\0" + row) * height))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + body + chunk(b"IEND", b"")
