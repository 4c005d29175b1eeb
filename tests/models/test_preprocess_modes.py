"""Every mode of a picture becomes RGB."""

from __future__ import annotations

import struct
import tracemalloc
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.preprocess import (
    decode,
    open_image,
    to_rgb,
)
from tests.models.pictures import chunk, encode, pixels, png

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
