"""TIFFs that end too early, in their data or their directory, and tags of what is not there."""

from __future__ import annotations

import struct

import pytest
from PIL import Image

from models.errors import ImageError
from models.preprocess import decode
from tests.models.formats.pictures import encode, pixels, tiff

ROW = {257: 1, 278: 1}
TWO = {256: 2, **ROW, 258: (8, 8, 8), 262: 2, 277: 3}
TWO_DATA = bytes([10, 20, 30, 40, 50, 60])


def test_what_decides_pixels_and_is_cut_off_is_no_default() -> None:
    """Its bits a sample lie last: without them, they would be 1."""
    right = tiff("<", TWO_DATA, TWO)
    behind = right[right.index(struct.pack("<HHI", 258, 3, 3)) + 8 :][:4]
    (place,) = struct.unpack("<I", behind)
    moved = right.replace(behind, struct.pack("<I", len(right)), 1) + right[place : place + 6]
    assert pixels(moved) == pixels(right)
    for end in (-1, -5, -6):
        with pytest.raises(ImageError, match="the TIFF data is broken or truncated"):
            decode(moved[:end])


def test_a_directory_that_is_cut_short_is_refused() -> None:
    right = tiff(">", bytes([10, 200]), {256: 2, **ROW, 258: 8, 262: 1, 339: (3, [1])})
    for end in (-6, -16):  # the last 4 lead to a second picture, and may be missing
        with pytest.raises(ImageError, match="the TIFF data is broken or truncated: its directory is cut short"):
            decode(right[:end])
    assert pixels(right[:-4]) == pixels(right)


@pytest.mark.parametrize("planar", [1, 2])
def test_an_uncompressed_tile_that_is_cut_is_refused(planar: int) -> None:
    stated = {256: 16, 257: 16, 258: (16, 16), 262: 1, 277: 2, 284: planar, 338: 0, 322: 16, 323: 16}
    data = bytes(range(256)) * 4
    places = (8, 8 + 512) if planar == 2 else (8,)
    right = tiff("<", data, {**stated, 324: places, 325: (len(data) // len(places),) * len(places)})
    assert decode(right).size == (16, 16)
    far = {324: tuple(place + len(right) for place in places)}
    moved = tiff("<", data, {**stated, **far, 325: (512,) * len(places)}).ljust(len(right) + 8, b"\0") + data
    with pytest.raises(ImageError, match="the TIFF data is broken or truncated"):
        decode(moved[:-9])


@pytest.mark.parametrize("tag", [266, 284, 292, 317, 320, 332, 338, 347, 513, 532])
def test_values_that_this_picture_does_not_need_may_lie_beyond_the_end(tag: int) -> None:
    lost = struct.pack("<HHII", tag, 3, 1000, 1 << 30)
    assert pixels(tiff("<", TWO_DATA, TWO, more=[lost])) == [[[10, 20, 30], [40, 50, 60]]]


@pytest.mark.parametrize("extra", [0, 1, 2, 99])
def test_extra_samples_that_there_are_not_decide_nothing(extra: int) -> None:
    assert pixels(tiff("<", TWO_DATA, {**TWO, 338: extra})) == [[[10, 20, 30], [40, 50, 60]]]
    assert pixels(tiff("<", TWO_DATA[:1], {256: 1, **ROW, 258: 8, 262: 1, 338: extra})) == [[[10, 10, 10]]]


def test_colours_that_are_not_stated_are_those_that_libtiff_takes() -> None:
    two = {tag: value for tag, value in TWO.items() if tag != 262}
    assert pixels(tiff("<", TWO_DATA, two)) == [[[10, 20, 30], [40, 50, 60]]]
    assert pixels(tiff(">", TWO_DATA[:2], {256: 2, **ROW, 258: 8})) == [[[10] * 3, [20] * 3]]
    assert pixels(tiff(">", TWO_DATA[:4], {256: 2, **ROW, 258: 16})) == [[[10] * 3, [30] * 3]]
    fax = encode(Image.new("1", (8, 1)), "TIFF", compression="group4")
    place = fax.index(struct.pack("<HHI", 262, 3, 1))
    white_is_0 = fax[: place + 8] + b"\0" + fax[place + 9 :]
    assert pixels(fax[:place] + struct.pack("<H", 254) + fax[place + 2 :]) == pixels(white_is_0)
    assert pixels(white_is_0) != pixels(fax)
