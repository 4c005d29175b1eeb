from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.formats.sizes import UNKNOWN, Stated, stated_size


def encoded(image_format: str, mode: str = "RGB", size: tuple[int, int] = (71, 43), **options: Any) -> bytes:
    file = BytesIO()
    Image.new(mode, size, 1).save(file, image_format, **options)
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x010E] = "x" * 20_000  # a long description
FILES = {
    "jpeg": encoded("JPEG"),
    "jpeg with metadata": encoded("JPEG", exif=EXIF),
    "progressive jpeg": encoded("JPEG", progressive=True),
    "png": encoded("PNG"),
    "gif": encoded("GIF", "P"),
    "bmp": encoded("BMP"),
    "webp": encoded("WEBP"),
    "lossless webp": encoded("WEBP", lossless=True),
    "extended webp": encoded("WEBP", "RGBA", lossless=True, exif=EXIF),
    "tiff": encoded("TIFF"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_states_its_kind_and_its_pixels(name: str) -> None:
    assert stated_size(FILES[name]) == Stated(name.partition(" with")[0], 71 * 43)


def test_a_tile_larger_than_the_picture_counts_whole() -> None:
    tiled = BytesIO()
    Image.new("L", (10, 10)).save(tiled, "TIFF", tiffinfo={322: 512, 323: 512})
    assert stated_size(tiled.getvalue()).pixels in (100, 512 * 512)  # whether Pillow writes tiles or not


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\xff\xd8" + b"\xff\xe0\0\2" * 10_000, b"II*\0", b"BM", b"RIFF1234WEBP"]
)
def test_a_file_that_says_nothing_is_unknown(content: bytes) -> None:
    assert stated_size(content) == UNKNOWN


@given(st.sampled_from(sorted(FILES)), st.integers(0, 2**32 - 1), st.integers(0, 200))
def test_damage_never_raises(name: str, seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray(FILES[name])
    for place in rng.integers(0, len(content), 5):
        content[place] = rng.integers(0, 256)
    assert stated_size(bytes(content[: len(content) - cut])).pixels >= 0


@pytest.mark.parametrize("offset", [2**40, 2**63, 2**64 - 1])
def test_a_directory_far_outside_the_file_states_nothing(offset: int) -> None:
    assert stated_size(b"II+\0" + struct.pack("<HHQ", 8, 0, offset) + bytes(64)) == UNKNOWN
