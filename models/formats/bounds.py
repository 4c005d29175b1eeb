"""Bounds on a decoder's work for a file, based on what real pictures need; pixels and bytes alone do not show it.

1. a file of countless tiny segments, chunks or blocks is rejected while it is read, before they fill the memory;
2. a JPEG of countless scans, each of which passes over all pixels again, is rejected before they are decoded;
3. a TIFF of countless strips, or of tiles with more pixels than a picture may have, is rejected before it is opened;
4. so is a TIFF whose strips all repeat the same bytes.

A megabyte of empty JPEG segments costs Pillow 34 MB and 0.4 s under the interpreter's lock; a megabyte of progressive
scans costs half a minute.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from io import BytesIO
from math import prod

from models.errors import ImageError

# Pillow reads four times a JPEG segment, three times a PNG chunk, twice a GIF block of 255 bytes.
MAX_READS = 100_000
BYTES_PER_FURTHER_READ = 1024
# Run-length encoded BMPs are decoded in Python, with two reads per run: a photo of a megapixel takes one or two
# seconds.
MAX_READS_OF_BMP = 2_000_000
# Encoders make about ten; libjpeg-turbo's own fuzzers stop at 500. Large pictures may have fewer: to find missing
# blocks, they are decoded several times.
MAX_SCANS, FEWEST_MAX_SCANS = 100, 20
MAX_SCANNED_PIXELS = 1_000_000_000
MAX_STRIPS = 100_000
# Strips of JPEG, each with its own header. Cut into tiles of 256 x 256, a picture of 50 megapixels has 800.
MAX_JPEG_STRIPS = 10_000
# Encoders may store equal tiles once, but those are small.
MAX_SHARED_BYTES = 16 << 20
# The most that TIFF can count; BigTIFF could go further.
MAX_ENTRIES = 65_535

_BMP = b"BM"
# TIFF 6.0: the tags that list the places of strips and tiles, and their lengths; and a tile's sides, which may be of
# three kinds of integer (BigTIFF: four).
_STRIPS = frozenset({273, 279, 324, 325})
_TILE_SIDES = frozenset({322, 323})
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_TIFF_ORDERS = {b"II": "<", b"MM": ">"}
# Where the directory's offset is, and the layouts of that offset, of the count of entries, and of one entry: its tag,
# type, number of values, and value if that is short. The number 43, a "+", makes a BigTIFF.
_TIFF = (4, "I", "H", "HHI4s")
_BIG_TIFF = (8, "Q", "Q", "HHQ8s")


class BoundedFile(BytesIO):
    """The file as the decoder reads it; `read` raises ImageError `undecodable_image` over a bound."""

    def __init__(self, encoded: bytes) -> None:
        super().__init__(encoded)
        reads = MAX_READS_OF_BMP if encoded.startswith(_BMP) else MAX_READS
        self._reads_left = reads + len(encoded) // BYTES_PER_FURTHER_READ

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self._reads_left -= 1
        if self._reads_left < 0:
            raise too_many_pieces()
        return content


def too_many_pieces() -> ImageError:
    return ImageError("undecodable_image", "the image has more segments, chunks or blocks than a picture needs")


def allowed_reads(encoded: bytes) -> int:
    return MAX_READS + len(encoded) // BYTES_PER_FURTHER_READ


def check_reads(reads: int, encoded: bytes) -> None:
    """Raises ImageError if a walk over `encoded` has taken more reads than its decoder may take."""
    if reads > allowed_reads(encoded):
        raise too_many_pieces()


def check_scans(scans: int, pixels: int) -> None:
    """Raises ImageError for more scans of a JPEG than a picture of this many pixels may have."""
    most = min(MAX_SCANS, max(FEWEST_MAX_SCANS, MAX_SCANNED_PIXELS // max(pixels, 1)))
    if scans > most:
        raise ImageError("undecodable_image", f"the image has more than {most} scans, the limit for its size")


def check_blocks(lengths: Sequence[int], size: int) -> None:
    """Raises ImageError for strips or tiles that together have far more bytes than their file of `size` bytes."""
    if sum(min(length, size) for length in lengths) > size + MAX_SHARED_BYTES:
        raise ImageError("undecodable_image", "the image's strips or tiles repeat the same bytes")


def check_jpegs(strips: int) -> None:
    """Raises ImageError over MAX_JPEG_STRIPS strips or tiles of a TIFF that are JPEGs."""
    if strips > MAX_JPEG_STRIPS:
        raise ImageError("undecodable_image", f"the image has more than {MAX_JPEG_STRIPS} strips of JPEG, the limit")


def check_tiff(encoded: bytes, max_pixels: int) -> None:
    """Checks the directory of a TIFF. It ignores other files and other faults.

    Raises ImageError: `undecodable_image` for more than MAX_STRIPS strips or tiles, `too_many_pixels` for a tile of
    more than `max_pixels`: it is decoded whole, however small the picture is.
    """
    sides: dict[int, int] = {}
    for tag, kind, values, value, order in tiff_entries(encoded):
        if tag in _STRIPS and values > MAX_STRIPS:
            raise ImageError("undecodable_image", f"the image has more than {MAX_STRIPS} strips or tiles, the limit")
        if tag in _TILE_SIDES:
            integer = struct.Struct(order + _INTEGERS.get(kind, "Q"))
            if integer.size > len(value):
                raise ImageError("undecodable_image", "the sides of the image's tiles are not integers")
            sides[tag] = max(sides.get(tag, 0), *integer.unpack_from(value))
    if prod(sides.values()) > max_pixels:
        tile = " x ".join(map(str, sides.values()))
        raise ImageError("too_many_pixels", f"the image has tiles of {tile} pixels, the limit is {max_pixels}")


def tiff_entries(encoded: bytes) -> Iterator[tuple[int, int, int, bytes, str]]:
    """(tag, type, number of values, value, byte order); nothing if there is no directory.

    Raises ImageError for too many entries and, after the last one, for a directory that is cut short.
    """
    order = _TIFF_ORDERS.get(encoded[:2])
    if order is None:
        return
    place, offset, entries, entry = _BIG_TIFF if b"+" in encoded[2:4] else _TIFF
    try:
        (directory,) = struct.unpack_from(order + offset, encoded, place)
        (count,) = struct.unpack_from(order + entries, encoded, directory)
    except (struct.error, OverflowError):  # the offset of a BigTIFF may be no address at all
        return
    if count > MAX_ENTRIES:
        raise ImageError("undecodable_image", f"the image has more than {MAX_ENTRIES} TIFF entries, the limit")
    size = struct.calcsize(order + entry)
    first = directory + struct.calcsize(order + entries)
    whole = min(count, (len(encoded) - first) // size)
    for tag, kind, values, value in struct.iter_unpack(order + entry, encoded[first : first + whole * size]):
        yield tag, kind, values, value, order
    if whole < count:
        raise ImageError("undecodable_image", "the TIFF data is broken or truncated: its directory is cut short")
