"""What a file says about the size of its picture, without opening it: for predictions, in microseconds.

1. the work is bounded, whatever the file: it is done in the event loop;
2. a file that says nothing here may be valid: models.preprocess decides that.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from models.errors import ImageError
from models.formats.bounds import tiff_entries


class Stated(NamedTuple):
    """`kind`: images that take about equally long to decode; `pixels`: width times height."""

    kind: str
    pixels: int


UNKNOWN = Stated("unknown", 0)
# Cameras write about twenty segments before the frame, and about fifty TIFF entries.
_MOST_SEGMENTS = 500
_MOST_ENTRIES = 1000
_MOST_BETWEEN_SEGMENTS = 4096
_MARKER = re.compile(rb"\xff([\x01-\xfe])")
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_SOS = 0xDA
# T.81, table B.1: sequential frames, and progressive ones, whose scans all pass over the whole picture.
_FRAMES = {0xC0: "jpeg", 0xC1: "jpeg", 0xC9: "jpeg", 0xC3: "jpeg", 0xC2: "progressive jpeg", 0xCA: "progressive jpeg"}
# TIFF 6.0: the sides of the picture, and those of its tiles, each of which is decoded whole.
_SIDES, _TILE_SIDES = (256, 257), (322, 323)
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


def stated_size(encoded: bytes) -> Stated:
    """UNKNOWN for a file that is not a picture, or states its size in an unusual place."""
    reader = next((reader for begin, reader in _READERS.items() if encoded.startswith(begin)), None)
    try:
        return reader(encoded) if reader else UNKNOWN
    except (struct.error, ImageError):
        return UNKNOWN


def _jpeg(encoded: bytes) -> Stated:
    place = 2
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(encoded, place, place + _MOST_BETWEEN_SEGMENTS)
        if found is None or found[1][0] == _SOS:
            break
        start, marker = found.end(), found[1][0]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", encoded, start + 3)
            return Stated(_FRAMES[marker], width * height)
        place = start
        if marker not in _WITHOUT_LENGTH:
            place += max(2, *struct.unpack_from(">H", encoded, start))
    return UNKNOWN


def _png(encoded: bytes) -> Stated:
    kind, width, height = struct.unpack_from(">4sII", encoded, 12)
    return Stated("png", width * height) if kind == b"IHDR" else UNKNOWN


def _gif(encoded: bytes) -> Stated:
    width, height = struct.unpack_from("<HH", encoded, 6)
    return Stated("gif", width * height)


def _bmp(encoded: bytes) -> Stated:
    header_bytes, width, height = struct.unpack_from("<Iii", encoded, 14)
    if header_bytes == 12:  # OS/2 1
        width, height = struct.unpack_from("<HH", encoded, 18)
    return Stated("bmp", abs(width * height))


def _webp(encoded: bytes) -> Stated:
    chunk = encoded[12:16]
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", encoded, 26)
        return Stated("webp", (width & 0x3FFF) * (height & 0x3FFF))
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", encoded, 21)
        return Stated("lossless webp", (1 + (bits & 0x3FFF)) * (1 + (bits >> 14 & 0x3FFF)))
    if chunk == b"VP8X" and len(encoded) >= 30:
        sides = (int.from_bytes(encoded[at : at + 3], "little") for at in (24, 27))
        return Stated("extended webp", (1 + next(sides)) * (1 + next(sides)))
    return UNKNOWN


def _tiff(encoded: bytes) -> Stated:
    sides: dict[int, int] = {}
    for tag, kind, _, value, order in islice(tiff_entries(encoded), _MOST_ENTRIES):
        if tag in _SIDES + _TILE_SIDES:
            (side,) = struct.unpack_from(order + _INTEGERS.get(kind, "I"), value)
            sides.setdefault(tag, side)  # of duplicates, the first counts
    width, height = (sides.get(tag, 0) for tag in _SIDES)
    tile_width, tile_height = (sides.get(tag, 0) for tag in _TILE_SIDES)
    return Stated("tiff", max(width * height, tile_width * tile_height)) if width and height else UNKNOWN


_READERS: dict[bytes, Callable[[bytes], Stated]] = {
    b"\xff\xd8": _jpeg,
    b"\x89PNG": _png,
    b"GIF8": _gif,
    b"BM": _bmp,
    b"RIFF": _webp,
    b"II": _tiff,
    b"MM": _tiff,
}
