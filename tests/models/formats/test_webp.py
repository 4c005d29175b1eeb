"""The promises of models.formats.webp."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from models.errors import ImageError
from models.preprocess import decode
from tests.models.formats.pictures import encode, exif, pixels

PICTURE = np.random.default_rng(4).integers(0, 256, (6, 5, 3), np.uint8)
TURNED = np.rot90(PICTURE, -1).tolist()
PLAIN = encode(PICTURE, "WEBP", lossless=True)
LOSSY = encode(PICTURE, "WEBP", quality=90)
ALPHA = encode(np.dstack([PICTURE, np.full((6, 5), 51, np.uint8)]), "WEBP", quality=90, alpha_quality=90)
STATED = encode(PICTURE, "WEBP", lossless=True, exif=exif(6), icc_profile=b"no profile", xmp=b"<x/>")


def chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def sized(encoded: bytes, size: int) -> bytes:
    return encoded[:4] + struct.pack("<I", size) + encoded[8:]


FRAME = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


ODD: dict[str, Callable[[bytes], bytes]] = {
    "a size of 0": lambda right: sized(right, 0),
    "a size that is too large": lambda right: sized(right, 1 << 30),
    "a size of all ones": lambda right: sized(right, 0xFFFFFFFF),
    "a size that is too small": lambda right: sized(right, 20),
    "bytes behind": lambda right: right + b"trailing",
    "another file behind": lambda right: right + right,
    "an unknown chunk behind": lambda right: right + chunk(b"junk", b"odd"),
    "an unknown chunk that is cut": lambda right: right + b"junk\xff\0\0\0",
    "EXIF of nonsense": lambda right: right + chunk(b"EXIF", b"nonsense"),
    "XMP of nonsense": lambda right: right + chunk(b"XMP ", b"\xff"),
}


@pytest.mark.parametrize("right", [PLAIN, LOSSY, ALPHA], ids=["lossless", "lossy", "alpha"])
@pytest.mark.parametrize("name", ODD)
def test_what_says_nothing_about_pixels_decides_nothing(name: str, right: bytes) -> None:
    assert pixels(ODD[name](right)) == pixels(right)


@pytest.mark.parametrize("name", ODD)
def test_an_orientation_is_found_beside_it(name: str) -> None:
    assert pixels(STATED) == TURNED
    assert pixels(ODD[name](STATED)) == TURNED


@pytest.mark.parametrize("alpha", [0, 0x10])
@pytest.mark.parametrize("background", [b"\xff\xff\xff\xff", b"\0\0\0\xff", bytes(4)])
def test_the_canvas_outside_the_first_frame_is_white(background: bytes, alpha: int) -> None:
    picture = np.full((4, 6, 3), 255, np.uint8)
    picture[2:, 2:] = FRAME
    frame = encode(FRAME, "WEBP", lossless=True)[12:]
    place = bytes([1, 0, 0, 1, 0, 0]) + bytes([3, 0, 0, 1, 0, 0]) + bytes(4)
    chunks = chunk(b"VP8X", bytes([2 | alpha, 0, 0, 0, 5, 0, 0, 3, 0, 0])) + chunk(b"ANIM", background + b"\0\0")
    chunks += chunk(b"ANMF", place + frame)
    assert pixels(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks) == picture.tolist()


def test_missing_pixels_are_refused() -> None:
    for right in (PLAIN, LOSSY):
        for cut in (30, len(right) // 2, len(right) - 20):
            with pytest.raises(ImageError):
                decode(right[:cut])
