"""The promises of models.formats.exif."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from models.formats.exif import orientation
from tests.models.formats.pictures import exif


def directory(*entries: bytes, order: str = ">", count: int | None = None) -> bytes:
    head = {">": b"MM", "<": b"II"}[order] + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", len(entries) if count is None else count) + b"".join(entries)


def entry(kind: int, value: bytes, tag: int = 0x0112, count: int = 1) -> bytes:
    return struct.pack(">HHI", tag, kind, count) + value.ljust(4, b"\0")


XMP = [
    b'<x tiff:Orientation="8"/>',
    b"<x tiff:Orientation='8'/>",
    b'<x tiff:Orientation = "8" />',
    b"<tiff:Orientation>8</tiff:Orientation>",
    b"<tiff:Orientation>\n  8\n</tiff:Orientation>",
    '<x tiff:Orientation="8"/>'.encode("utf-16-be"),
    '<x tiff:Orientation="8"/>'.encode("utf-32"),
]
LEADS_OUT = entry(2, b"\xff\xff\xff\xff", 0x010F, 1000)
STATED = {
    "as the standard has it": exif(6),
    "with JPEG's prefix": b"Exif\0\0" + exif(6),
    "with the prefix twice": b"Exif\0\0" * 2 + exif(6),
    "with a prefix that ends in ones": b"Exif\0\xff" + exif(6),
    "as a long": directory(entry(4, b"\0\0\0\6")),
    "as a byte": directory(entry(1, b"\6")),
    "as a signed short": directory(entry(8, b"\0\6")),
    "behind an entry that leads out": directory(LEADS_OUT, entry(3, b"\0\6")),
    "before an end that is missing": directory(entry(3, b"\0\6"), count=999),
    "little endian": directory(struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0), order="<"),
}
SILENT = {
    "nothing": b"",
    "nonsense": b"nonsense",
    "a header alone": b"MM\0*\0\0\0\x08",
    "another byte order": b"XX" + exif(6)[2:],
    "a directory that is elsewhere": exif(6)[:4] + b"\xff\xff\xff\xff" + exif(6)[8:],
    "a cut entry": exif(6)[:15],
    "0": exif(0),
    "9": exif(9),
    "text": directory(entry(2, b"6\0")),
    "two values": directory(entry(3, b"\0\6\0\6", count=2)),
    "a signed -1": directory(entry(6, b"\xff")),
}


@pytest.mark.parametrize("name", STATED)
def test_an_orientation_is_read_where_it_can_be(name: str) -> None:
    assert orientation(STATED[name]) == 6


@pytest.mark.parametrize("name", SILENT)
def test_what_states_none_is_upright(name: str) -> None:
    assert orientation(SILENT[name]) == 1


def test_xmp_counts_where_exif_is_silent() -> None:
    for xmp in XMP:
        for broken in (b"", b"nonsense", exif(0), exif(9)):
            assert orientation(broken, xmp=xmp) == 8
        assert orientation(exif(3), xmp=xmp) == 3
    assert orientation(b"", xmp=b'tiff:Orientation="9"') == orientation(xmp=b'tiff:Orientation="81"') == 1


def test_of_several_blocks_the_first_that_can_be_read_counts() -> None:
    assert orientation(b"nonsense", exif(0), exif(6), exif(3)) == 6


def test_whatever_the_bytes_are_there_is_an_orientation() -> None:
    random = np.random.default_rng(5)
    for number in range(2000):
        spoilt = bytearray(exif(1 + number % 8))
        for place in random.integers(0, len(spoilt), 3):
            spoilt[place] = random.integers(0, 256)
        assert 1 <= orientation(bytes(spoilt[: random.integers(0, len(spoilt) + 1)])) <= 8
