"""The promise of models.pixels.resizing: a part equals, bit for bit, the same part of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.pixels.resizing import REACH, Axis, resize_part

FILTERS = sorted(Image.Resampling)


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Noise, in which each wrong weight shows."""
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, shape, np.uint8))


def check(image: Image.Image, size: tuple[int, int], resample: Image.Resampling, box: tuple[int, ...]) -> None:
    whole = image.resize(size, resample).crop(box)
    part = resize_part(image, size, resample, box)
    assert part.size == whole.size
    assert np.array_equal(np.asarray(part), np.asarray(whole))


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (500, 375, (341, 256)),
        (375, 500, (256, 341)),
        (500, 333, (384, 256)),
        (640, 480, (313, 235)),
        (300, 300, (256, 256)),
        (300, 256, (256, 218)),
        (256, 300, (256, 300)),
        (256, 300, (256, 299)),
        (120, 90, (341, 256)),
        (1, 1, (256, 256)),
        (3, 700, (256, 59733)),
        (2000, 3000, (256, 384)),
    ],
)
def test_each_pixel_equals_that_of_the_whole(
    width: int, height: int, size: tuple[int, int], resample: Image.Resampling
) -> None:
    left, top = (size[0] - 200) // 2, (size[1] - 200) // 2
    check(photo(width, height), size, resample, (left, top, left + 200, top + 200))


@settings(max_examples=300)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.sampled_from([1, 2, 32, 64, 128]) | st.integers(1, 130), st.sampled_from([64]) | st.integers(1, 130)),
    st.sampled_from(sorted(REACH)),
    st.data(),
)
def test_any_part_of_any_size_equals_that_of_the_whole(
    before: tuple[int, int], after: tuple[int, int], resample: Image.Resampling, data: st.DataObject
) -> None:
    left, top = (data.draw(st.integers(0, side - 1)) for side in after)
    box = (left, top, data.draw(st.integers(left + 1, after[0])), data.draw(st.integers(top + 1, after[1])))
    check(photo(*before), after, resample, box)


def test_grey_and_what_is_known_of_the_picture_are_kept() -> None:
    image = photo(300, 200, "L")
    image.info["icc_profile"] = b"a profile"
    part = resize_part(image, (96, 64), Image.Resampling.BICUBIC, (10, 10, 60, 60))
    assert (part.mode, part.info["icc_profile"]) == ("L", b"a profile")
    check(image, (96, 64), Image.Resampling.BICUBIC, (10, 10, 60, 60))


def test_only_the_rows_that_the_part_needs_are_read() -> None:
    assert Axis(length=3000, resized=384, first=80, end=304).read(2.0) == (608, 2392)
    assert Axis(length=100, resized=200, first=0, end=200).read(2.0) == (0, 100)


def test_edges_that_float32_cannot_hold_are_not_used_as_a_box() -> None:
    assert Axis(500, 256, 16, 240).can_be_boxed
    assert not Axis(500, 341, 58, 282).can_be_boxed
    assert not Axis(70_000, 256, 16, 240).can_be_boxed
