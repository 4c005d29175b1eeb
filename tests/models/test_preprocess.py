"""The promises of models.preprocess: what becomes of each kind of picture, and where each pixel goes."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import models
from models.errors import ImageError
from models.manifest import Preprocess
from models.preprocess import (
    FORMATS,
    MAX_IMAGE_PIXELS,
    SUFFIXES,
    decode,
    images_in,
    open_image,
    preprocess,
    resize_and_crop,
    to_rgb,
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


# --- the header


@pytest.mark.parametrize("format_", FORMATS)
def test_pixels_are_counted_from_the_header(format_: str) -> None:
    encoded = encode(noise(20, 30, 3), format_)
    assert decode(encoded, max_pixels=600).size == (30, 20)
    for refuse in (open_image, decode):
        with pytest.raises(ImageError, match=r"^the image has 30 x 20 = 600 pixels, the limit is 599$") as caught:
            refuse(encoded, max_pixels=599)
        assert caught.value.code == "too_many_pixels"


def test_60_megapixels_are_rejected_before_anything_is_decoded() -> None:
    """The picture has no pixels at all, only a header: it could not be decoded."""
    header = png(8, 2, b"", width=10_000, height=6_000)[:33]
    encoded = header + struct.pack(">I", 1000) + b"IDAT"
    with pytest.raises(ImageError, match="the image has 10000 x 6000 = 60000000 pixels, the limit is 50000000"):
        decode(encoded)
    with pytest.raises(ImageError, match="the PNG data is broken or truncated"):
        decode(encoded.replace(header, png(8, 2, b"", width=10, height=6)[:33]))


def test_a_bomb_of_40_bytes_is_rejected() -> None:
    """256 megapixels of one colour, as lossless WebP."""
    bomb = bytes.fromhex("5249464620000000574542505650384c140000002f7ffe9f0f075081540820000a9afec78888fe07")
    with pytest.raises(ImageError, match="the image has 16000 x 16000 = 256000000 pixels"):
        decode(bomb)


def test_exactly_the_limit_is_allowed() -> None:
    assert MAX_IMAGE_PIXELS == 50_000_000
    assert open_image(png(8, 2, b"", width=10_000, height=5_000)).size == (10_000, 5_000)


@pytest.mark.parametrize("format_", FORMATS)
def test_the_format_of_an_open_image_is_one_of_the_known(format_: str) -> None:
    assert open_image(encode(noise(4, 4, 3), format_)).format == format_


def test_two_pictures_in_one_jpeg_are_a_jpeg_of_the_first() -> None:
    """Phones write a preview or a depth map behind the photo; Pillow calls that MPO."""
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    encoded = encode(red, "MPO", save_all=True, append_images=[blue])
    assert open_image(encoded).format == "JPEG"
    assert pixels(encoded) == pixels(encode(red, "JPEG"))


@pytest.mark.parametrize(
    "encoded",
    [
        b"hello, this is text",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>",
        b"%PDF-1.7\n",
        b"\0" * 1000,
        b"\xff\xd8\xff",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"RIFF\0\0\0\0WEBP",
        encode(noise(4, 4, 3), "PPM"),
        encode(noise(4, 4, 3), "ICO"),
        png(8, 2, b"", width=0, height=6),
    ],
    ids=["text", "SVG", "PDF", "zeros", "JPEG", "GIF", "BMP", "TIFF", "WebP", "PPM", "ICO", "no width"],
)
def test_an_unknown_format_lists_the_known_ones(encoded: bytes) -> None:
    with pytest.raises(ImageError, match="not a readable image; formats: JPEG, PNG, WEBP, GIF, BMP, TIFF") as caught:
        decode(encoded)
    assert caught.value.code == "undecodable_image"


@pytest.mark.parametrize(
    ("encoded", "hint"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "this is HEIC, as iPhones write it: save it as JPEG"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "this is HEIC, as iPhones write it: save it as JPEG"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "this is AVIF: save it as JPEG"),
        (b"\0\0\0\x18ftypisom\0\0\2\0", "this is a video: send one of its frames"),
        (b"%PDF-1.7\n\xe2\xe3", "this is a PDF: save its page as PNG"),
        (b"\n<!doctype html>", "this is HTML, SVG or XML: send an image file"),
        (b"https://example.com/cat.jpg", "this is a URL: send the file itself"),
        (b"photos/cat.jpg", "this is text, perhaps the name of a file instead of its content"),
        (b"\xff\xd8\xff\xe0 and no more", "it looks like one but is damaged"),
        (b"Caf\xc3\xa9", "formats: JPEG, PNG, WEBP, GIF, BMP, TIFF"),
        (b"\0" * 1000, "formats: JPEG, PNG, WEBP, GIF, BMP, TIFF"),
    ],
)
def test_a_file_of_another_kind_is_named(encoded: bytes, hint: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(encoded)
    assert str(caught.value).endswith(hint)


def test_an_empty_image_says_so() -> None:
    with pytest.raises(ImageError, match=r"the image is empty \(0 bytes\)") as caught:
        decode(b"")
    assert caught.value.code == "undecodable_image"


# --- modes

WHITE = [255, 255, 255]
GREY_16 = np.array([[0, 25_700], [128, 65_535]], np.uint16)
FLOATS = np.array([[0.0, 0.5], [-1e38, 1.0]], np.float32)
ALPHA = np.array([[[0, 0, 0, 128], [100, 1, 2, 255], [9, 9, 9, 0]]], np.uint8)
TWO = np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8)
PALETTE = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60]))


def two_pixels_in_a_palette() -> Image.Image:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    return image


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "WEBP"])
def test_rgb_stays_as_it_is(format_: str) -> None:
    options = {"lossless": True} if format_ == "WEBP" else {}
    assert pixels(encode(TWO, format_, **options)) == TWO.tolist()


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "GIF"])
def test_black_and_white_becomes_rgb(format_: str) -> None:
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert pixels(encode(image, format_)) == [[[0, 0, 0], WHITE]]


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "GIF"])
def test_grey_becomes_rgb(format_: str) -> None:
    assert pixels(encode(np.array([[0, 100]], np.uint8), format_)) == [[[0, 0, 0], [100, 100, 100]]]


def test_a_grey_jpeg_becomes_rgb() -> None:
    image = decode(encode(np.full((16, 16), 77, np.uint8), "JPEG"))
    assert image.mode == "RGB"
    assert np.unique(np.asarray(image)).tolist() == [77]


@pytest.mark.parametrize("format_", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_becomes_rgb(format_: str) -> None:
    assert pixels(encode(two_pixels_in_a_palette(), format_)) == TWO.tolist()


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_to_8(format_: str) -> None:
    grey = [[0, 100], [0, 255]]
    assert pixels(encode(GREY_16, format_)) == [[[value] * 3 for value in row] for row in grey]


def test_16_bit_grey_is_rounded_to_the_nearest_of_8() -> None:
    """All 65536 values against whole-number arithmetic."""
    grey = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    expected = (np.arange(65_536) * 2 + 257) // 514
    assert np.array_equal(np.asarray(decode(encode(grey, "PNG")))[:, :, 1].ravel(), expected)


def test_big_endian_16_bit_grey_is_scaled_to_8() -> None:
    image = Image.frombytes("I;16B", (2, 2), GREY_16.astype(">u2").tobytes())
    assert np.asarray(to_rgb(image))[:, :, 0].tolist() == [[0, 100], [0, 255]]


def test_32_bit_grey_is_taken_for_16() -> None:
    grey = np.array([[-5, 25_700, 65_535, 70_000]], np.int32)
    assert pixels(encode(grey, "TIFF")) == [[[0, 0, 0], [100, 100, 100], WHITE, WHITE]]


def test_floats_of_0_to_1_become_0_to_255() -> None:
    assert pixels(encode(FLOATS, "TIFF")) == [[[0, 0, 0], [128, 128, 128]], [[0, 0, 0], WHITE]]


def test_floats_over_1_are_taken_for_0_to_255() -> None:
    floats = np.array([[0.0, 100.4], [-3.0, 1e38]], np.float32)
    assert pixels(encode(floats, "TIFF")) == [[[0, 0, 0], [100, 100, 100]], [[0, 0, 0], WHITE]]


def test_floats_that_are_not_finite_are_black() -> None:
    floats = np.array([[np.nan, np.inf, -np.inf, 0.2]], np.float32)
    assert pixels(encode(floats, "TIFF")) == [[[0, 0, 0]] * 3 + [[51, 51, 51]]]


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_laid_over_white(format_: str) -> None:
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {}
    assert pixels(encode(ALPHA, format_, **options)) == [[[127, 127, 127], [100, 1, 2], WHITE]]


@given(st.integers(0, 255), st.integers(0, 255))
def test_alpha_over_white_is_right_to_the_nearest(value: int, alpha: int) -> None:
    image = Image.new("RGBA", (1, 1), (value, value, value, alpha))
    exact = Fraction(value * alpha + 255 * (255 - alpha), 255)
    assert abs(np.asarray(to_rgb(image))[0, 0, 0] - exact) <= Fraction(1, 2)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_grey_with_alpha_is_laid_over_white(format_: str) -> None:
    image = Image.fromarray(np.array([[[0, 128], [100, 255], [9, 0]]], np.uint8), "LA")
    assert pixels(encode(image, format_)) == [[[127, 127, 127], [100, 100, 100], WHITE]]


def test_a_palette_with_alpha_is_laid_over_white() -> None:
    assert pixels(encode(two_pixels_in_a_palette(), "PNG", transparency=bytes([0, 255]))) == [[WHITE, [40, 50, 60]]]
    assert pixels(encode(two_pixels_in_a_palette(), "PNG", transparency=bytes([51]))) == [
        [[206, 208, 210], [40, 50, 60]]
    ]
    assert pixels(encode(two_pixels_in_a_palette(), "GIF", transparency=0)) == [[WHITE, [40, 50, 60]]]


def test_a_palette_beside_an_alpha_channel_is_laid_over_white() -> None:
    image = two_pixels_in_a_palette().convert("PA")
    image.putalpha(Image.fromarray(np.array([[0, 255]], np.uint8)))
    assert image.mode == "PA"
    assert pixels(encode(image, "TIFF")) == [[WHITE, [40, 50, 60]]]


def test_the_transparent_colour_of_a_png_is_laid_over_white() -> None:
    assert pixels(encode(TWO, "PNG", transparency=(10, 20, 30))) == [[WHITE, [40, 50, 60]]]
    assert pixels(encode(np.array([[0, 100]], np.uint8), "PNG", transparency=100)) == [[[0, 0, 0], WHITE]]
    black = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert pixels(encode(black, "PNG", transparency=0)) == [[WHITE, WHITE]]
    assert pixels(encode(GREY_16, "PNG", transparency=25_700)) == [[[0, 0, 0], WHITE], [[0, 0, 0], WHITE]]


def test_16_bit_rgb_and_alpha_become_8() -> None:
    """Pillow takes the upper byte."""
    rgb = struct.pack(">6H", 0x0A00, 0x1480, 0x1EFF, 0x2800, 0x3200, 0x3C00)
    assert pixels(png(16, 2, rgb)) == [[[10, 20, 30], [40, 50, 60]]]
    rgba = struct.pack(">8H", 0, 0, 0, 0x8000, 0x2800, 0x3200, 0x3C00, 0xFFFF)
    assert pixels(png(16, 6, rgba)) == [[[127, 127, 127], [40, 50, 60]]]
    grey_alpha = struct.pack(">4H", 0, 0x8000, 0x2800, 0xFFFF)
    assert pixels(png(16, 4, grey_alpha)) == [[[127, 127, 127], [40, 40, 40]]]


@pytest.mark.parametrize(
    ("bits", "row", "expected"), [(1, 0b01000000, [0, 255]), (2, 0b01100000, [85, 170]), (4, 0x5A, [85, 170])]
)
def test_grey_of_few_bits_becomes_8(bits: int, row: int, expected: list[int]) -> None:
    assert pixels(png(bits, 0, bytes([row]))) == [[[value] * 3 for value in expected]]


def test_a_palette_of_one_bit_becomes_rgb() -> None:
    assert pixels(png(1, 3, bytes([0b01000000]), PALETTE)) == TWO.tolist()


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(format_: str) -> None:
    """Cyan, magenta and yellow inks of 0, 255, 51 and black of 102 of 255."""
    encoded = encode(Image.new("CMYK", (16, 16), (0, 255, 51, 102)), format_)
    assert np.abs(np.asarray(decode(encoded), np.int16) - [153, 0, 122]).max() <= 2


def test_cmyk_without_adobes_marker_is_read_as_if_it_had_one() -> None:
    """Pillow's choice: programs that leave the marker out store inverted inks too."""
    encoded = encode(Image.new("CMYK", (16, 16), (0, 255, 51, 102)), "JPEG")
    marker = encoded.index(b"\xff\xee")
    assert encoded[marker + 4 : marker + 9] == b"Adobe"
    assert pixels(encoded[:marker] + encoded[marker + 16 :]) == pixels(encoded)


def test_ycck_becomes_rgb() -> None:
    """Stored Y 150, Cb 100, Cr 180 are the inks 223, 122, 100 (JFIF's formula); stored black 200 is an ink of 55."""
    encoded = encode(Image.new("CMYK", (16, 16), (105, 155, 75, 55)), "JPEG", quality=100, subsampling=0)
    transform = encoded.index(b"Adobe") + 11
    ycck = encoded[:transform] + b"\2" + encoded[transform + 1 :]
    expected = [(255 - ink) * 200 / 255 for ink in (223, 122, 100)]
    assert np.abs(np.asarray(decode(ycck), np.int16) - expected).max() <= 2


@pytest.mark.parametrize(("mode", "options"), [("YCbCr", {"compression": "jpeg"}), ("LAB", {})])
def test_other_colour_spaces_of_tiff_become_rgb(mode: str, options: dict[str, str]) -> None:
    assert decode(encode(Image.new(mode, (16, 16)), "TIFF", **options)).mode == "RGB"


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(format_: str) -> None:
    red, blue = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    options = {"lossless": True} if format_ == "WEBP" else {}
    encoded = encode(red, format_, save_all=True, append_images=[blue, red], **options)
    assert Image.open(BytesIO(encoded)).n_frames == 3  # type: ignore[attr-defined]  # all four plugins have it
    assert pixels(encoded) == [[[255, 0, 0]] * 4] * 4


def test_16_bit_grey_takes_no_more_memory_than_it_must() -> None:
    """Python's and numpy's share a pixel: 2 bytes as read, 4 as float32, 1 as grey, with room for one more."""
    image = open_image(encode(np.zeros((1000, 1000), np.uint16), "PNG"))
    image.load()
    tracemalloc.start()
    to_rgb(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8.5e6


# --- EXIF

# EXIF 2.32: what the 0th row and the 0th column of the stored picture show, as a way to store an upright one.
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,  # top, left
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.swapaxes(0, 1),  # left, top
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),  # right, top
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda upright: upright[::-1].swapaxes(0, 1),  # left, bottom
}
# Blocks of 8 x 8 of one grey each: JPEG stores these the same however they are turned.
UPRIGHT = np.repeat(np.repeat(noise(3, 5), 8, axis=0), 8, axis=1)[:, :, None].repeat(3, axis=2)


def oriented(orientation: int, format_: str = "PNG", **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED.get(orientation, STORED[1])(UPRIGHT))
    return encode(stored, format_, exif=exif, **options)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_exif_orientation_is_applied(format_: str, options: dict[str, Any], orientation: int) -> None:
    upright = decode(encode(UPRIGHT, format_, **options))
    turned = decode(oriented(orientation, format_, **options))
    assert turned.size == (40, 24)
    assert np.array_equal(np.asarray(turned), np.asarray(upright))


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_invalid_orientation_changes_nothing(orientation: int) -> None:
    assert np.array_equal(np.asarray(decode(oriented(orientation))), UPRIGHT)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_data_spoils_no_good_picture(format_: str) -> None:
    """300 times other EXIF data; as good or bad as it is, the pixels are there, turned in some way."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 1, "maker"
    exif.get_ifd(0x8769)[0x9000] = b"0232"
    right = exif.tobytes()
    plain = np.asarray(decode(encode(UPRIGHT, format_)))
    ways = {np.ascontiguousarray(turn(plain)).tobytes() for turn in STORED.values()}
    random = np.random.default_rng(11)
    for _ in range(300):
        broken = bytearray(right)
        for place in random.integers(6 if format_ == "JPEG" else 0, len(broken), random.integers(1, 9)):
            broken[place] = random.integers(0, 256)
        cut = bytes(broken[: random.integers(8, len(broken) + 1)])
        picture = decode(encode(UPRIGHT, format_, exif=cut))
        assert np.asarray(picture).tobytes() in ways


def test_odd_metadata_prints_no_warning() -> None:
    """In a process of its own, since pytest turns warnings into errors."""
    encoded = encode(UPRIGHT, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0\0")
    program = "import sys; from models.preprocess import decode; decode(sys.stdin.buffer.read())"
    root = Path(models.__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", program], input=encoded, cwd=root, capture_output=True)
    assert (run.returncode, run.stderr) == (0, b"")
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        Image.open(BytesIO(encoded)).getexif()


# --- geometry

SIZES = [(8, 8), (9, 8), (8, 9), (31, 17), (17, 31), (500, 333), (333, 500), (1, 1), (2, 3), (640, 479), (7, 100)]


def by_hand(image: Image.Image, chosen: Preprocess) -> Image.Image:
    """The geometry in whole numbers and fractions, from the words of the manifest."""
    rounding = {"floor": lambda value: value.numerator // value.denominator, "round": round}
    short, (width, height) = chosen.resize_size, image.size
    long_side = rounding[chosen.long_side_rounding](Fraction(short * max(width, height), min(width, height)))
    size = (short, long_side) if width < height else (long_side, short)
    left, top = (rounding[chosen.crop_offset_rounding](Fraction(side - chosen.input_size, 2)) for side in size)
    resized = image.resize(size, Image.Resampling[chosen.interpolation.upper()])
    return resized.crop((left, top, left + chosen.input_size, top + chosen.input_size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("long_side", ["floor", "round"])
@pytest.mark.parametrize("offset", ["floor", "round"])
@pytest.mark.parametrize(("input_size", "crop_pct"), [(8, 1.0), (8, 0.875), (7, 0.875), (32, 0.95), (33, 0.6)])
def test_sizes_and_offsets_are_those_of_the_formulas(
    size: tuple[int, int], long_side: str, offset: str, input_size: int, crop_pct: float
) -> None:
    chosen = spec(input_size, crop_pct, long_side_rounding=long_side, crop_offset_rounding=offset)
    image = Image.fromarray(noise(size[1], size[0], 3))
    crop = resize_and_crop(image, chosen)
    assert crop.size == (input_size, input_size)
    assert np.array_equal(np.asarray(crop), np.asarray(by_hand(image, chosen)))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40), st.floats(0.3, 1.0), st.booleans())
def test_any_size_gives_a_square_that_lies_inside(
    width: int, height: int, input_size: int, crop_pct: float, floor: bool
) -> None:
    """A crop that left the image would show black, Pillow's filling."""
    rounding = "floor" if floor else "round"
    chosen = spec(input_size, crop_pct, long_side_rounding=rounding, crop_offset_rounding=rounding)
    crop = resize_and_crop(Image.new("RGB", (width, height), "white"), chosen)
    assert crop.size == (input_size, input_size)
    assert crop.getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize(("rounding", "left", "top"), [("floor", 1, 0), ("round", 2, 0)])
def test_an_offset_of_half_a_pixel_is_rounded_as_the_spec_says(rounding: str, left: int, top: int) -> None:
    """7 x 5 pixels that tell their place, cut to 4 x 4: offsets of 1.5 and 0.5 (rounded half to even)."""
    place = np.stack([*np.meshgrid(np.arange(7), np.arange(5)), np.zeros((5, 7))], axis=2).astype(np.uint8)
    crop = resize_and_crop(Image.fromarray(place), spec(4, 0.8, crop_offset_rounding=rounding))
    assert crop.getpixel((0, 0)) == (left, top, 0)
    assert crop.getpixel((3, 3)) == (left + 3, top + 3, 0)


@pytest.mark.parametrize(("rounding", "long_side"), [("floor", 23), ("round", 24)])
def test_the_long_side_is_rounded_as_the_spec_says(rounding: str, long_side: int) -> None:
    """19 x 8 pixels with a short side of 10: 10 * 19 / 8 = 23.75."""
    image = Image.fromarray(noise(8, 19, 3))
    crop = resize_and_crop(image, spec(10, long_side_rounding=rounding))
    left = (long_side - 10) // 2
    expected = image.resize((long_side, 10), Image.Resampling.BICUBIC).crop((left, 0, left + 10, 10))
    assert np.array_equal(np.asarray(crop), np.asarray(expected))


@pytest.mark.parametrize("size", [(1, 40_000), (40_000, 1), (3, 5_000_000)])
def test_an_image_too_long_and_thin_is_rejected(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    with pytest.raises(ImageError, match=f"an image of {size[0]} x {size[1]} pixels is too long and thin") as caught:
        resize_and_crop(image, spec(224, 0.875))
    assert caught.value.code == "too_many_pixels"


def test_an_image_long_and_thin_is_taken_as_long_as_memory_allows() -> None:
    assert resize_and_crop(Image.new("RGB", (1, 40_000), "white"), spec(8)).getextrema() == ((255, 255),) * 3


# --- the tensor


def test_a_tensor_by_hand() -> None:
    picture = np.array([[[0, 51, 255], [255, 102, 0]], [[51, 153, 51], [102, 204, 255]]], np.uint8)
    chosen = spec(2, mean=(0.5, 0.2, 0.0), std=(0.25, 0.2, 0.5))
    tensor = preprocess(encode(picture, "PNG"), chosen)
    expected = [[[-2.0, 2.0], [-1.2, -0.4]], [[0.0, 1.0], [2.0, 3.0]], [[2.0, 0.0], [0.4, 2.0]]]
    assert np.abs(tensor - expected).max() < 1e-6
    assert (tensor.shape, tensor.dtype, tensor.flags.c_contiguous) == ((3, 2, 2), np.float32, True)


def test_one_pixel_fills_the_tensor() -> None:
    tensor = preprocess(encode(np.full((1, 1, 3), 255, np.uint8), "PNG"), spec(8, 0.875))
    assert np.array_equal(tensor, np.ones((3, 8, 8)))


def test_the_same_bytes_and_spec_give_the_same_tensor_in_every_thread() -> None:
    encoded = encode(noise(60, 80, 3), "JPEG")
    chosen = spec(32, 0.875)
    alone = preprocess(encoded, chosen)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(alone, other) for other in pool.map(lambda _: preprocess(encoded, chosen), range(20)))


def test_the_suffixes_are_those_of_the_formats() -> None:
    assert {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"} <= SUFFIXES
    assert ".txt" not in SUFFIXES


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    counted = ["a.JPG", "inner/b.jfif", "inner/deeper/c.webp"]
    for name in [*counted, ".d.jpg", ".cache/e.jpg", "inner/.cache/f.png", "notes.txt", "g.jpg/notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(str(path.relative_to(tmp_path)) for path in images_in(tmp_path)) == counted


# Sizes apart from a crop's fraction


def test_squash_resizes_both_sides_and_then_crops() -> None:
    picture = Image.fromarray(noise(40, 24, 3))
    squashed = picture.resize((16, 16), Image.Resampling.BILINEAR).crop((1, 1, 15, 15))
    asked = Preprocess(
        input_size=14, resize="squash", resize_to=16, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1)
    )
    found = preprocess(encode(picture, "PNG"), asked)
    np.testing.assert_allclose(found.transpose(1, 2, 0) * 255, np.asarray(squashed), atol=1e-4)


def test_an_explicit_size_is_that_of_the_short_side() -> None:
    picture = Image.fromarray(noise(40, 24, 3))
    resized = picture.resize((15, 25), Image.Resampling.BILINEAR).crop((0, 5, 14, 19))
    asked = Preprocess(input_size=14, resize_to=15, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    found = preprocess(encode(picture, "PNG"), asked)
    np.testing.assert_allclose(found.transpose(1, 2, 0) * 255, np.asarray(resized), atol=1e-4)
