"""The promises of models.preprocess: what is read, and where each pixel goes."""

from __future__ import annotations

import struct
import subprocess
import sys
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
)
from tests.models.pictures import Pixels, encode, noise, pixels, png, spec

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


def test_a_signalling_nan_is_black_and_prints_no_warning() -> None:
    """Warnings are errors here; the service would write them to stderr."""
    signalling = np.array([[0x7F800001, 0x3F800000]], np.uint32).view(np.float32)
    found = np.asarray(decode(encode(Image.fromarray(signalling), "TIFF")))
    assert found[0, :, 0].tolist() == [0, 255]


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
