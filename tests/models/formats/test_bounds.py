"""Each bomb is small on the wire; what it would have cost is in models.formats.bounds and docs/hostile-input.md."""

from __future__ import annotations

import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.errors import ImageError
from models.formats.bounds import (
    FEWEST_MAX_SCANS,
    MAX_ENTRIES,
    MAX_JPEG_STRIPS,
    MAX_READS,
    MAX_READS_OF_BMP,
    MAX_SCANS,
    MAX_STRIPS,
)
from models.preprocess import decode, open_image
from tests.models.formats import pictures

MEBIBYTE = 1 << 20
PHOTO = Image.effect_noise((64, 48), 50).convert("RGB")


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def png_chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def inserted(encoded: bytes, place: int, piece: bytes) -> bytes:
    return encoded[:place] + piece * MAX_READS + encoded[place:]


def gif_of_comments() -> bytes:
    encoded = encode(PHOTO, "GIF")
    behind_palette = 13 + 3 * (2 << (encoded[10] & 7))
    return inserted(encoded, behind_palette, b"\x21\xfe\x01x\x00")


PNG, JPEG = encode(PHOTO, "PNG"), encode(PHOTO, "JPEG")
COUNTLESS = {
    "jpeg segments": inserted(JPEG, 2, b"\xff\xe5\0\2"),
    "jpeg comments": inserted(JPEG, 2, b"\xff\xfe\0\2"),
    "jpeg fill bytes": inserted(JPEG, 2, b"\xff\xff"),
    "png chunks": inserted(PNG, 33, png_chunk(b"abCd")),
    "png data chunks": inserted(PNG, PNG.index(b"IDAT") - 4, png_chunk(b"IDAT")),
    "png chunks at the end": inserted(PNG, len(PNG) - 12, png_chunk(b"abCd")),
    "gif comments": gif_of_comments(),
}


def refusal(encoded: bytes, max_pixels: int = 50_000_000) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(encoded, max_pixels)
    return caught.value


@pytest.mark.parametrize("name", COUNTLESS)
def test_a_file_of_countless_tiny_segments_chunks_or_blocks_is_rejected_before_they_fill_the_memory(name: str) -> None:
    tracemalloc.start()
    try:
        error = refusal(COUNTLESS[name])
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (error.code, "more segments, chunks or blocks" in error.detail) == ("undecodable_image", True)
    # Pillow keeps a note of a few of them; all of them would take ten times as much.
    assert most_bytes < 16 * MEBIBYTE


@pytest.mark.parametrize("pieces", ["segments", "fill bytes"])
def test_a_few_thousand_segments_are_read(pieces: str) -> None:
    piece = {"segments": b"\xff\xe5\0\2", "fill bytes": b"\xff\xff"}[pieces]
    assert decode(JPEG[:2] + piece * 5000 + JPEG[2:]).size == PHOTO.size


def with_scans(more: int) -> bytes:
    """A progressive JPEG whose last scan comes `more` times more."""
    encoded = encode(PHOTO.convert("L"), "JPEG", progressive=True)
    last = encoded[encoded.rindex(b"\xff\xda") : -2]
    return encoded[:-2] + last * more + encoded[-2:]


def test_a_jpeg_of_countless_scans_is_rejected_before_they_are_decoded() -> None:
    assert decode(with_scans(50)).size == PHOTO.size
    error = refusal(with_scans(MAX_SCANS))
    detail = f"the image has more than {MAX_SCANS} scans, the limit for its size"
    assert (error.code, error.detail) == ("undecodable_image", detail)


def test_large_pictures_may_have_fewer_scans() -> None:
    """A picture that takes 4 s to decode is decoded several times to find missing blocks: 295 kB took 17 s."""
    large = encode(Image.new("L", (7000, 7000), 99), "JPEG", progressive=True)
    scans = [found.start() for found in re.finditer(b"\xff\xda", large)]
    more = large[scans[-1] : -2] * FEWEST_MAX_SCANS
    assert open_image(large).size == (7000, 7000)
    assert f"more than {FEWEST_MAX_SCANS} scans, the limit for its size" in refusal(large[:-2] + more).detail
    assert refusal(large, 1_000_000).code == "too_many_pixels"


def test_what_looks_like_scans_after_the_picture_is_not_counted() -> None:
    """Phones append a video to a photo."""
    assert decode(JPEG + bytes(70_000) + b"\xff\xda" * (2 * MAX_SCANS)).size == PHOTO.size


def tiff(order: str, *entries: tuple[int, int, int, int], big: bool = False) -> bytes:
    """Only a header and a directory of (tag, type, count, value); an integer of 2 bytes is written as TIFF wants it."""
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "H", 43 if big else 42)
    head += struct.pack(order + "HHQ", 8, 0, 16) if big else struct.pack(order + "I", 8)
    rows = []
    for tag, kind, count, value in entries:
        field = struct.pack(order + {3: "H", 4: "I", 16: "Q"}.get(kind, "I"), value).ljust(8 if big else 4, b"\0")
        rows.append(struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, count) + field)
    return head + struct.pack(order + ("Q" if big else "H"), len(entries)) + b"".join(rows) + bytes(8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tag", [273, 279, 324, 325])
def test_a_tiff_of_countless_strips_is_rejected_before_it_is_opened(order: str, tag: int) -> None:
    error = refusal(tiff(order, (256, 4, 1, 1), (257, 4, 1, 9), (tag, 4, MAX_STRIPS + 1, 8)))
    assert (error.code, error.detail) == (
        "undecodable_image",
        f"the image has more than {MAX_STRIPS} strips or tiles, the limit",
    )


def test_a_big_tiff_of_countless_strips_is_rejected_too() -> None:
    assert "strips" in refusal(tiff("<", (273, 16, MAX_STRIPS + 1, 8), big=True)).detail
    entries = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, MAX_ENTRIES + 1)
    assert f"more than {MAX_ENTRIES} TIFF entries" in refusal(entries + bytes(100)).detail


def test_a_tiff_of_tiles_with_more_pixels_than_a_picture_may_have_is_rejected_before_it_is_opened() -> None:
    tiles = ((256, 3, 1, 10), (257, 3, 1, 10), (322, 4, 1, 20_000), (323, 3, 1, 30_000))
    for order in "<>":
        error = refusal(tiff(order, *tiles))
        assert (error.code, error.detail) == (
            "too_many_pixels",
            "the image has tiles of 20000 x 30000 pixels, the limit is 50000000",
        )
    assert refusal(tiff("<", *tiles, (323, 3, 1, 1))).code == "too_many_pixels"  # whichever of the two is believed
    assert refusal(tiff("<", *tiles[:3], (323, 16, 1, 1))).detail == "the sides of the image's tiles are not integers"


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_a_tiff_cut_anywhere_is_left_to_the_decoder(cut: int) -> None:
    assert refusal(tiff("<", (256, 4, 1, 1), (257, 4, 1, 9), (273, 4, 2, 8))[:cut]).code == "undecodable_image"


def tiled_tiff() -> bytes:
    """A grey picture of 40 x 30 in deflated tiles of 32 x 32: Pillow reads them but writes none."""
    pixels = np.asarray(PHOTO.convert("L"))[:30, :40]
    padded = np.zeros((32, 64), np.uint8)
    padded[:30, :40] = pixels
    tiles = [zlib.compress(padded[:, x : x + 32].tobytes()) for x in (0, 32)]
    lists, start = 200, 300
    entries = [(256, 3, 1, 40), (257, 3, 1, 30), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    entries += [(322, 3, 1, 32), (323, 3, 1, 32), (324, 4, 2, lists), (325, 4, 2, lists + 8)]
    places = struct.pack("<IIII", start, start + len(tiles[0]), len(tiles[0]), len(tiles[1]))
    return (tiff("<", *entries).ljust(lists, b"\0") + places).ljust(start, b"\0") + b"".join(tiles)


def test_ordinary_tiles_are_read() -> None:
    assert np.array_equal(np.asarray(decode(tiled_tiff()))[:, :, 0], np.asarray(PHOTO.convert("L"))[:30, :40])


def most_bytes_to_open(encoded: bytes) -> int:
    tracemalloc.start()
    try:
        refusal(encoded)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("kind", "size"), [(1, 1), (3, 2), (4, 4)])
def test_numbers_that_no_picture_needs_are_not_read(kind: int, size: int) -> None:
    """Fourteen tags that all list the same 4 MiB took 570 MB and 1 s."""
    tags = (258, 259, 262, 266, 274, 277, 278, 284, 317, 320, 332, 338, 339)
    entries = [(256, 4, 1, 10), (257, 4, 1, 10), *((tag, kind, (4 << 20) // size, 400) for tag in tags)]
    encoded = tiff("<", *entries).ljust(400, b"\0") + struct.pack("<I", 70_000) * (1 << 20)
    assert most_bytes_to_open(encoded) < 8 * MEBIBYTE


def same_strips(count: int, compression: int, bits: int, strip: bytes) -> bytes:
    """A grey picture of 8 columns and `count` rows, each the same strip."""
    entries = [(256, 3, 1, 8), (257, 4, 1, count), (258, 3, 1, bits), (259, 3, 1, compression), (262, 3, 1, 1)]
    lists = 200
    entries += [(273, 4, count, lists), (277, 3, 1, 1), (278, 3, 1, 1), (279, 4, count, lists + 4 * count)]
    places = struct.pack("<I", lists + 8 * count) * count + struct.pack("<I", len(strip)) * count
    return tiff("<", *entries).ljust(lists, b"\0") + places + strip


STRIPS = {
    "jpeg": (7, 8, encode(Image.new("L", (8, 1), 7), "JPEG")),
    "deflate": (8, 8, zlib.compress(bytes([7]) * 8)),
    "deflate of 16 bits": (8, 16, zlib.compress(bytes([7]) * 16)),
}


@pytest.mark.parametrize("name", STRIPS)
def test_strips_that_are_the_same_bytes_again_and_again_are_rejected(name: str) -> None:
    """1 MB of them took 3 GB and 10 s. Equal tiles that an encoder stored once are read."""
    compression, bits, strip = STRIPS[name]
    assert decode(same_strips(300, compression, bits, strip)).getpixel((7, 299)) == (7, 7, 7)
    error = refusal(same_strips(300, compression, bits, strip + bytes(MEBIBYTE)))
    assert error.detail == "the image's strips or tiles repeat the same bytes"


def test_a_tiff_of_countless_small_jpegs_is_rejected() -> None:
    assert "strips of JPEG, the limit" in refusal(same_strips(MAX_JPEG_STRIPS + 1, *STRIPS["jpeg"])).detail


def test_countless_samples_are_rejected_before_they_are_read() -> None:
    """6 MB of zeros in 16 samples of 64 bits a pixel took 44 s."""
    stated = {256: 1000, 257: 1000, 278: 1, 258: (64,) * 16, 262: 2, 277: 16, 339: 3, 259: 8, 338: (0,) * 13}
    error = refusal(pictures.tiff("<", zlib.compress(bytes(99)), stated), 1_000_000)
    detail = "the image has samples of 128000000 bytes, the limit is 16 for each allowed pixel: 16000000"
    assert (error.code, error.detail) == ("too_many_pixels", detail)


def run_length_bmp(width: int, height: int, run: Callable[[int], bytes]) -> bytes:
    """An 8-bit BMP with `height` rows of `run(width)` and an end of line each."""
    rows = (run(width) + b"\0\0") * height + b"\0\1"
    palette = bytes(value for grey in range(256) for value in (grey, grey, grey, 0))
    start = 54 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0) + palette + rows


def test_run_length_bmps_may_take_more_reads_but_not_endlessly_many() -> None:
    assert decode(run_length_bmp(300, 300, lambda width: b"\1\7" * width)).getpixel((0, 0)) == (7, 7, 7)
    endless = run_length_bmp(1000, MAX_READS_OF_BMP // 2000 + 10, lambda width: b"\1\7" * width)
    assert open_image(endless).size[0] == 1000
    assert "more segments" in refusal(endless).detail
