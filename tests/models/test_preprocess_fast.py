"""Fast pixels beside exact ones: where they are the same, and how near they are elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.errors import ImageError
from models.manifest import Preprocess
from models.preprocess import FAST_MARGIN, open_image, preprocess, read_pixels, resize_and_crop

HALF = (0.5, 0.5, 0.5)
SPEC = Preprocess(input_size=56, crop_pct=0.875, interpolation="bicubic", mean=HALF, std=HALF)  # short side 64
WHOLE = (1023, 769)  # no multiple of a scale
# Of 255, on average and at most. The same picture sized by its reduced form is off by 1.54 and 81.
NEAR = (0.5, 8)


@pytest.fixture(scope="module")
def photo(draw_image: Callable[..., bytes]) -> Image.Image:
    """Ellipses with some grain."""
    drawn = np.asarray(Image.open(BytesIO(draw_image(7, "PNG", WHOLE))), np.int16)
    grain = np.random.default_rng(1).normal(0, 8, drawn.shape)
    return Image.fromarray(np.clip(drawn + grain, 0, 255).astype(np.uint8))


def encode(image: Image.Image, format_: str = "JPEG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def crops(encoded: bytes) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """With exact and with fast pixels."""
    images = [read_pixels(open_image(encoded), fast) for fast in (None, SPEC)]
    exact, fast = (np.asarray(resize_and_crop(image, SPEC), np.int16) for image in images)
    return exact, fast


def assert_near(encoded: bytes) -> None:
    exact, fast = crops(encoded)
    off = np.abs(exact - fast)
    assert 0 < off.mean() < NEAR[0]
    assert off.max() < NEAR[1]


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}, {"restart_marker_blocks": 4}],
    ids=["baseline", "progressive", "4:4:4", "quality 30", "restarts"],
)
def test_fast_pixels_are_nearly_the_exact_ones(photo: Image.Image, options: dict[str, Any]) -> None:
    assert_near(encode(photo, **options))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_fast_pixels_of_grey_and_cmyk_are_nearly_exact_too(photo: Image.Image, mode: str) -> None:
    assert_near(encode(photo.convert(mode)))


def test_of_two_pictures_in_one_jpeg_the_first_is_taken(photo: Image.Image) -> None:
    both = encode(photo, "MPO", save_all=True, append_images=[Image.new("RGB", WHOLE)])
    assert_near(both)
    assert np.array_equal(preprocess(both, SPEC, pixels="fast"), preprocess(encode(photo), SPEC, pixels="fast"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(photo: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_near(encode(photo, exif=exif))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_broken_exif_data_spoils_no_good_picture(photo: Image.Image) -> None:
    assert_near(encode(photo, exif=b"Exif\0\0II*\0 this is no directory"))


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_if_no_scale_applies_fast_pixels_are_the_exact_ones_bit_for_bit(photo: Image.Image, format_: str) -> None:
    """Nor to a TIFF, even if it is compressed as JPEG."""
    encoded = encode(photo, format_, **({"compression": "jpeg"} if format_ == "TIFF" else {}))
    assert np.array_equal(preprocess(encoded, SPEC), preprocess(encoded, SPEC, pixels="fast"))


@pytest.mark.parametrize(
    ("short", "scale"), [(65, 1), (255, 1), (256, 2), (511, 2), (512, 4), (1023, 4), (1024, 8), (2100, 8)]
)
@pytest.mark.parametrize("upright", [True, False])
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_leaves_the_margin(short: int, scale: int, upright: bool) -> None:
    width, height = (short, short + 9) if upright else (short + 9, short)
    noise = np.random.default_rng(short).integers(0, 256, (height, width), np.uint8)
    encoded = encode(Image.fromarray(noise))
    image = open_image(encoded)
    read_pixels(image, SPEC)
    assert image.size == (-(-width // scale), -(-height // scale))
    assert scale == 1 or min(image.size) >= FAST_MARGIN * SPEC.resize_size
    assert np.array_equal(*crops(encoded)) is (scale == 1)


def test_a_truncated_jpeg_is_rejected_in_both(photo: Image.Image) -> None:
    encoded = encode(photo)
    for fast in (None, SPEC):
        with pytest.raises(ImageError, match="the JPEG data is broken or truncated"):
            read_pixels(open_image(encoded[: len(encoded) // 2]), fast)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("progressive", [False, True])
def test_whatever_bytes_are_wrong_it_is_an_image_error(photo: Image.Image, progressive: bool) -> None:
    encoded = encode(photo.resize((283, 257)), progressive=progressive)
    random, outcomes = np.random.default_rng(3), set()
    for number in range(300):
        spoiled = np.frombuffer(encoded, np.uint8).copy()
        places = random.integers(0, len(encoded) if number % 2 else 700, 8)
        spoiled[places] = random.integers(0, 256, 8)
        try:
            tensor = preprocess(spoiled.tobytes(), SPEC, max_pixels=200_000, pixels="fast")
            outcomes.add(np.isfinite(tensor).all())
        except ImageError as error:
            outcomes.add(error.code)
    assert {True, "undecodable_image"} <= outcomes <= {True, "undecodable_image", "too_many_pixels"}


def test_exact_is_the_default(photo: Image.Image) -> None:
    encoded = encode(photo)
    assert np.array_equal(preprocess(encoded, SPEC), preprocess(encoded, SPEC, pixels="exact"))
    assert not np.array_equal(preprocess(encoded, SPEC), preprocess(encoded, SPEC, pixels="fast"))
