"""Promise 2 of models.preprocess: whatever is wrong with the bytes is an ImageError, never another exception.

Seeded, so that a failure comes again; the message of a failed assertion holds the bytes.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.errors import ImageError
from models.manifest import Preprocess
from models.preprocess import preprocess

# As in production, where models.preprocess silences Pillow; pytest would make errors of its warnings.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

SPEC = Preprocess(input_size=8, interpolation="bicubic", crop_pct=1.0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
MUTANTS = 400
RANDOM = np.random.default_rng(2)
PHOTO = Image.fromarray(RANDOM.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((40, 30), Image.Resampling.BICUBIC)
GREY_16 = Image.fromarray(RANDOM.integers(0, 65_536, (24, 31), dtype=np.uint16))
FLOATS = Image.fromarray(RANDOM.random((9, 11), dtype=np.float32))


def encode(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = 6, "maker"
    return tags


ANIMATED = {"save_all": True, "append_images": [PHOTO.rotate(90)]}
PICTURES = {
    "jpeg": encode(PHOTO, "JPEG", exif=exif()),
    "jpeg progressive": encode(PHOTO, "JPEG", progressive=True),
    "jpeg cmyk": encode(PHOTO.convert("CMYK"), "JPEG"),
    "jpeg of two": encode(PHOTO, "MPO", **ANIMATED),
    "png": encode(PHOTO, "PNG", exif=exif()),
    "png palette": encode(PHOTO.quantize(16), "PNG", transparency=bytes([0, 128])),
    "png 16 bit": encode(GREY_16, "PNG", transparency=3),
    "png animated": encode(PHOTO, "PNG", **ANIMATED),
    "webp": encode(PHOTO, "WEBP", exif=exif()),
    "webp lossless": encode(PHOTO.convert("RGBA"), "WEBP", lossless=True),
    "webp animated": encode(PHOTO, "WEBP", **ANIMATED),
    "gif": encode(PHOTO, "GIF", **ANIMATED),
    "bmp": encode(PHOTO, "BMP"),
    "bmp palette": encode(PHOTO.quantize(16), "BMP"),
    "bmp one bit": encode(PHOTO.convert("1"), "BMP"),
    "tiff": encode(PHOTO, "TIFF", exif=exif()),
    "tiff lzw": encode(PHOTO, "TIFF", compression="tiff_lzw"),
    "tiff jpeg": encode(PHOTO, "TIFF", compression="jpeg"),
    "tiff deflate": encode(PHOTO, "TIFF", compression="tiff_adobe_deflate"),
    "tiff group4": encode(PHOTO.convert("1"), "TIFF", compression="group4"),
    "tiff 16 bit": encode(GREY_16, "TIFF"),
    "tiff float": encode(FLOATS, "TIFF"),
}


def outcome(encoded: bytes) -> str:
    """`tensor` or the code of an ImageError; anything else fails the test. Few pixels allowed, to keep it quick."""
    try:
        tensor = preprocess(encoded, SPEC, max_pixels=200_000)
    except ImageError as error:
        return error.code
    except Exception as error:  # noqa: BLE001  # the very thing looked for, kept with the bytes that did it
        pytest.fail(f"{error!r} from {encoded.hex()}")
    assert tensor.shape == (3, 8, 8)
    assert np.isfinite(tensor).all()
    return "tensor"


def mutant(encoded: bytes, random: np.random.Generator, reach: int) -> bytes:
    """1 to 8 of the first `reach` bytes replaced, most by the values at which lengths and signs turn."""
    spoiled = bytearray(encoded)
    for place in random.integers(0, min(reach, len(spoiled)), random.integers(1, 9)):
        spoiled[place] = random.choice([0, 1, 127, 128, 255, random.integers(0, 256)])
    return bytes(spoiled)


@pytest.mark.parametrize("name", PICTURES)
def test_whatever_bytes_are_wrong_it_is_an_image_error(name: str) -> None:
    """Half of the mutants anywhere, half in the header, where the decoders take their decisions."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    encoded = PICTURES[name]
    assert outcome(encoded) == "tensor"
    outcomes = {outcome(mutant(encoded, random, len(encoded) if i % 2 else 120)) for i in range(MUTANTS)}
    assert "undecodable_image" in outcomes
    assert outcomes <= {"tensor", "undecodable_image", "too_many_pixels"}


def with_right_checksums(encoded: bytes) -> bytes:
    """A PNG whose chunks have other contents and right checksums: else nothing behind those would be reached."""
    right, place = bytearray(encoded[:8]), 8
    while place + 12 <= len(encoded):
        (length,) = struct.unpack_from(">I", encoded, place)
        body = encoded[place + 4 : place + 8 + length]
        right += encoded[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return bytes(right)


@pytest.mark.parametrize("name", [name for name in PICTURES if name.startswith("png")])
def test_whatever_a_png_says_under_right_checksums_it_is_an_image_error(name: str) -> None:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    encoded = PICTURES[name]
    assert with_right_checksums(encoded) == encoded
    outcomes = [outcome(with_right_checksums(mutant(encoded, random, 140))) for _ in range(MUTANTS)]
    assert {"tensor", "undecodable_image"} <= set(outcomes)


@pytest.mark.parametrize("name", PICTURES)
def test_wherever_a_picture_is_cut_it_is_an_image_error(name: str) -> None:
    encoded = PICTURES[name]
    cuts = np.linspace(0, len(encoded) - 1, 120, dtype=int)
    outcomes = [outcome(encoded[:cut]) for cut in cuts]
    assert set(outcomes) <= {"tensor", "undecodable_image"}
    assert outcomes[0] == "undecodable_image"


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive", "png", "png palette", "png 16 bit"])
def test_a_picture_without_its_second_half_is_never_shown(name: str) -> None:
    """Half a picture would be classified as something that it is not."""
    encoded = PICTURES[name]
    assert {outcome(encoded[:cut]) for cut in range(0, len(encoded) * 3 // 4)} == {"undecodable_image"}


@pytest.mark.parametrize("length", [1, 2, 3, 4, 8, 16, 100, 5000])
def test_random_bytes_are_an_image_error(length: int) -> None:
    random = np.random.default_rng(length)
    assert {outcome(random.bytes(length)) for _ in range(50)} == {"undecodable_image"}


@pytest.mark.parametrize("name", PICTURES)
def test_bytes_behind_the_picture_do_no_harm(name: str) -> None:
    assert outcome(PICTURES[name] + b"trailing" * 100) == "tensor"
