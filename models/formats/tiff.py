"""TIFF: the first picture, under a new directory with only the tags that determine the pixels.

1. other tags are ignored, however malformed;
2. sample layouts that Pillow does not read correctly go through models.formats.samples;
3. unsupported compressions and sample types are named.

TIFF 6.0; BigTIFF; tag values as in libtiff's tiff.h.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from PIL import Image, ImageFile

from models.errors import ImageError
from models.formats import exif
from models.formats.bounds import MAX_STRIPS, check_blocks, check_jpegs, check_tiff, tiff_entries
from models.formats.directory import LONG, SHORT, Field, longs, shorts, under_directory
from models.formats.jpeg import open_jpeg
from models.formats.opening import (
    MAX_PROFILE_BYTES,
    HeaderError,
    LateImage,
    Statements,
    damaged,
    open_with_pillow,
    unsupported,
)
from models.formats.samples import Layout, picture_mode, read_samples

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _COLOUR_MAP, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_BYTES = 317, 320, 322, 323, 324, 325
_INK_SET, _EXTRA, _FORMAT, _JPEG_TABLES, _XMP, _PROFILE = 332, 338, 339, 347, 700, 34675
# Kept unchanged: fax options, old-style JPEG, JPEG tables and YCbCr parameters.
_KEPT = frozenset({292, 293, *range(512, 522), 529, 530, 531, 532, _JPEG_TABLES})
_NUMBERS = frozenset({_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIP_OFFSETS, _ORIENTATION})
_NUMBERS |= {_SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR, _COLOUR_MAP, _TILE_WIDTH, _TILE_LENGTH}
_NUMBERS |= {_TILE_OFFSETS, _TILE_BYTES, _INK_SET, _EXTRA, _FORMAT}
# Without them, a default would silently give other pixels.
_DECISIVE = frozenset({_BITS, _FORMAT, _STRIP_OFFSETS, _TILE_OFFSETS})
_LONGS = frozenset({_WIDTH, _LENGTH, _STRIP_OFFSETS, _ROWS, _STRIP_BYTES, _TILE_WIDTH, _TILE_LENGTH})
_LONGS |= {_TILE_OFFSETS, _TILE_BYTES}
_INTEGERS = {1: "B", SHORT: "H", LONG: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
# Bytes per value of the other types, whose content is copied.
_BYTES = {2: 1, 5: 8, 7: 1, 10: 8, 11: 4, 12: 8}
_MAX_CONTENT_BYTES = MAX_PROFILE_BYTES
# Numbers per tag: for tags that list blocks or colours, and for the others, which have one per sample.
_MAX_LISTED = dict.fromkeys((_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES), MAX_STRIPS)
_MAX_LISTED[_COLOUR_MAP] = 3 << 16
_MAX_SAMPLES = 64
# For each pixel that a picture may have. RGBA of 32-bit floats takes 16.
_MOST_BAND_BYTES, _MOST_SAMPLE_BYTES = 8, 16

_GREY_WHITE_IS_0, _GREY, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COLOURS = {_GREY_WHITE_IS_0: 1, _GREY: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3}
_UNSUPPORTED_COLOURS = {
    4: "a TIFF of a transparency mask",
    9: "a TIFF in ICC Lab colours",
    10: "a TIFF in ITU Lab colours",
    32803: "a camera's raw file (CFA samples)",
    32844: "a TIFF of logarithmic luminance",
    32845: "a TIFF in LogLuv colours",
    34892: "a camera's raw file (linear samples)",
}
_UNCOMPRESSED, _OLD_JPEG, _JPEG = 1, 6, 7
_LOSSLESS = frozenset({_UNCOMPRESSED, 5, 8, 32773, 32946, 34925, 50000})
_FAX = frozenset({2, 3, 4})
_COMPRESSIONS = _LOSSLESS | _FAX | {_OLD_JPEG, _JPEG}
_COMPRESSION_NAMES = {
    32766: "NeXT",
    32809: "ThunderScan",
    32909: "PixarLog",
    34661: "JBIG",
    34676: "SGI LogL",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy DNG",
    50001: "WebP",  # Pillow's libtiff is built without it
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_COMPLEX = frozenset({5, 6})
_UNTYPED = 4


def open_tiff(encoded: bytes, max_pixels: int) -> Image.Image:
    """May raise anything; ImageError for unsupported formats."""
    check_tiff(encoded, max_pixels)
    order, fields = _read_fields(encoded)
    numbers = {tag: _numbers(order, field) for tag, field in fields.items() if tag in _NUMBERS}
    layout = _layout(order, numbers, len(encoded))
    _check_supported(layout, numbers)
    if layout.compression != _UNCOMPRESSED:  # otherwise only rows of known lengths are read
        check_blocks(layout.lengths, len(encoded))
    stated = _statements(numbers, fields)
    if _pillow_reads(layout):
        if layout.width * layout.height <= max_pixels:
            _check_whole(encoded, layout)
        return _open(encoded, order, layout, numbers, fields, stated)
    mode, size = picture_mode(layout), (layout.width, layout.height)
    _check_size(layout, max_pixels)
    return LateImage("TIFF", mode, size, partial(read_samples, encoded, layout), stated)


def _read_fields(encoded: bytes) -> tuple[str, dict[int, Field]]:
    """Byte order and the relevant tags. Of duplicate tags, the first counts, as in libtiff.

    Raises ImageError if the values of a required tag lie beyond the end of the file.
    """
    if b"*" not in encoded[2:4] and b"+" not in encoded[2:4]:
        raise HeaderError
    fields: dict[int, Field] = {}
    byte_order = ""
    for tag, kind, count, value, byte_order in tiff_entries(encoded):
        wanted = tag in _NUMBERS or tag in _KEPT or tag in (_XMP, _PROFILE)
        size = struct.calcsize(_INTEGERS[kind]) if kind in _INTEGERS else _BYTES.get(kind, 0)
        if not wanted or tag in fields or not 0 < size * count <= _MAX_CONTENT_BYTES:
            continue
        if tag in _NUMBERS:
            count = min(count, _MAX_LISTED.get(tag, _MAX_SAMPLES))
        if size * count > len(value):
            (place,) = struct.unpack(byte_order + ("I" if len(value) == 4 else "Q"), value)
            value = encoded[place : place + size * count]
        if len(value) >= size * count:
            fields[tag] = Field(kind, count, value[: size * count])
        elif tag in _DECISIVE:
            raise damaged("TIFF")
    return byte_order, fields


def _numbers(order: str, field: Field) -> tuple[int, ...]:
    """Empty if the type is not an integer."""
    if field.kind not in _INTEGERS:
        return ()
    return struct.unpack(f"{order}{field.values}{_INTEGERS[field.kind]}", field.content)


def _layout(order: str, numbers: Mapping[int, tuple[int, ...]], length: int) -> Layout:
    """Raises HeaderError if the tags do not describe a picture."""

    def number(tag: int, default: int | None = None) -> int:
        values = numbers.get(tag) or (() if default is None else (default,))
        if not values:
            raise HeaderError
        return values[0]

    width, height = number(_WIDTH), number(_LENGTH)
    compression = number(_COMPRESSION, _UNCOMPRESSED)
    samples = number(_SAMPLES, 3 if compression == _OLD_JPEG else 1)
    photometric = number(_PHOTOMETRIC, _usual_colours(compression, samples))
    extra = samples - _COLOURS.get(photometric, 1)
    if width <= 0 or height <= 0 or samples <= 0 or samples > _MAX_SAMPLES:
        raise HeaderError
    tiled = _TILE_OFFSETS in numbers
    rows = number(_TILE_LENGTH) if tiled else min(number(_ROWS, height), height)
    block_width = number(_TILE_WIDTH) if tiled else width
    if rows <= 0 or block_width <= 0:
        raise HeaderError
    return Layout(
        order=order,
        width=width,
        height=height,
        photometric=photometric,
        compression=compression,
        bits=_same(numbers.get(_BITS) or (1,), samples),
        format=_same(numbers.get(_FORMAT) or (1,), samples),
        samples=samples,
        colours=samples - max(extra, 0),
        extra=(numbers.get(_EXTRA) or ())[: max(extra, 0)],
        planar=number(_PLANAR, 1) == 2 and samples > 1,
        predictor=number(_PREDICTOR, 1),
        fill_order=number(_FILL_ORDER, 1),
        colour_map=_16_bit(numbers.get(_COLOUR_MAP) or ()),
        tiled=tiled,
        block_width=block_width,
        block_height=rows,
        offsets=numbers.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS) or (),
        lengths=numbers.get(_TILE_BYTES if tiled else _STRIP_BYTES) or (),
    )


def _usual_colours(compression: int, samples: int) -> int:
    """The default if the file does not say, as in libtiff's TIFFRGBAImage."""
    if compression in _FAX:
        return _GREY_WHITE_IS_0
    return _GREY if samples < _COLOURS[_RGB] else _RGB


def _same(values: Sequence[int], samples: int) -> int:
    """The value that all samples share, or 0 if they differ. Files may give too few or too many values."""
    used = set(values[:samples])
    return used.pop() if len(used) == 1 else 0


def _16_bit(colours: tuple[int, ...]) -> tuple[int, ...]:
    """A colour map with all values below 256 is an 8-bit one, as in libtiff."""
    return tuple(value * 257 for value in colours) if colours and max(colours) < 256 else colours


def _check_supported(layout: Layout, numbers: Mapping[int, tuple[int, ...]]) -> None:
    if layout.compression not in _COMPRESSIONS:
        name = _COMPRESSION_NAMES.get(layout.compression, str(layout.compression))
        raise unsupported(f"a TIFF of compression {name}")
    if layout.photometric not in _COLOURS:
        kind = _UNSUPPORTED_COLOURS.get(layout.photometric, f"a TIFF of colours {layout.photometric}")
        raise unsupported(kind)
    if layout.photometric == _LAB and layout.compression not in _LOSSLESS:
        raise unsupported("a TIFF of Lab colours under JPEG")
    if layout.format in _COMPLEX:
        raise unsupported("a TIFF of complex numbers")
    if layout.photometric == _CMYK and numbers.get(_INK_SET, (1,))[:1] == (2,):
        raise unsupported("a TIFF of other inks than CMYK")
    if layout.colours < _COLOURS[layout.photometric] and layout.compression not in (_OLD_JPEG, _JPEG):
        raise HeaderError
    if not _pillow_reads(layout) and (layout.compression not in _LOSSLESS or not layout.is_readable):
        raise unsupported(f"a TIFF of {_describe(layout)}")


def _describe(layout: Layout) -> str:
    kinds = {1: "integers", 2: "signed integers", 3: "floats"}
    bits = f"{layout.bits}-bit" if layout.bits else "unequal"
    colours = {_LAB: " in Lab colours", _YCBCR: " in YCbCr colours"}.get(layout.photometric, "")
    packed = "" if layout.compression in _LOSSLESS else f" under compression {layout.compression}"
    return f"{bits} {kinds.get(layout.format, 'samples')}{colours}{packed}"


def _pillow_reads(layout: Layout) -> bool:
    """Whether Pillow reads this layout correctly."""
    if layout.compression not in _LOSSLESS or layout.photometric == _YCBCR:
        return layout.bits in (1, 8) and layout.format in (1, _UNTYPED)
    if layout.planar or layout.format not in (1, _UNTYPED):
        return False
    if layout.photometric in (_GREY_WHITE_IS_0, _GREY, _PALETTE):
        return layout.samples == 1 and layout.bits in (1, 2, 4, 8)
    if layout.fill_order != 1 and (layout.photometric, layout.samples) != (_RGB, 3):
        return False
    alpha = layout.photometric == _RGB and layout.samples == 4
    return layout.bits == 8 and (layout.samples == layout.colours or alpha)


def _check_whole(encoded: bytes, layout: Layout) -> None:
    """Raises ImageError if rows of an uncompressed picture lie beyond the end of the file."""
    if layout.compression != _UNCOMPRESSED or layout.photometric == _YCBCR:
        return
    for block in range(layout.across * layout.down):
        rows = (
            layout.block_height
            if layout.tiled
            else min(layout.block_height, layout.height - block * layout.block_height)
        )
        if block >= len(layout.offsets) or layout.offsets[block] + rows * layout.row_bytes > len(encoded):
            raise damaged("TIFF")


def _check_size(layout: Layout, max_pixels: int) -> None:
    """Raises ImageError for blocks that take too much memory, since a block is decoded as a whole, and for samples that
    take too much time."""
    for what, size, each in (
        ("strips or tiles", layout.band_bytes, _MOST_BAND_BYTES),
        ("samples", layout.sample_bytes, _MOST_SAMPLE_BYTES),
    ):
        most = each * max_pixels
        if size > most:
            detail = f"the image has {what} of {size} bytes, the limit is {each} for each allowed pixel: {most}"
            raise ImageError("too_many_pixels", detail)


def _statements(numbers: Mapping[int, tuple[int, ...]], fields: Mapping[int, Field]) -> Statements:
    stated = (numbers.get(_ORIENTATION) or (0,))[0]
    xmp = fields[_XMP].content if _XMP in fields else b""
    orientation = stated if 1 <= stated <= 8 else exif.orientation(xmp=xmp)
    return Statements(orientation, fields[_PROFILE].content if _PROFILE in fields else None)


def _open(
    encoded: bytes,
    order: str,
    layout: Layout,
    numbers: Mapping[int, tuple[int, ...]],
    fields: Mapping[int, Field],
    stated: Statements,
) -> Image.Image:
    """Opened by Pillow, under a new directory."""
    tags: dict[int, Field] = {tag: fields[tag] for tag in _KEPT if tag in fields}
    for tag, values in numbers.items():
        if tag != _ORIENTATION and values:
            tags[tag] = longs(order, *values) if tag in _LONGS else shorts(order, *values)
    tags[_PHOTOMETRIC] = shorts(order, layout.photometric)
    if layout.colour_map:
        tags[_COLOUR_MAP] = shorts(order, *layout.colour_map)
    lengths_tag = _TILE_BYTES if layout.tiled else _STRIP_BYTES
    # The new directory follows the data, and must not be decoded in place of missing data.
    lengths = [
        min(length, max(len(encoded) - at, 0)) for at, length in zip(layout.offsets, layout.lengths, strict=False)
    ]
    if lengths:
        tags[lengths_tag] = longs(order, *lengths)
    if layout.format == _UNTYPED:
        tags.pop(_FORMAT)
    if not layout.extra:  # it may declare samples that do not exist
        tags.pop(_EXTRA, None)
    if layout.compression in (_OLD_JPEG, _JPEG):
        tags.pop(_FILL_ORDER, None)  # libtiff ignores it for JPEG, Pillow does not
    image = open_with_pillow(under_directory(order, memoryview(encoded)[8:], tags), "TIFF", stated)
    if layout.photometric == _YCBCR and layout.compression == _UNCOMPRESSED:
        _read_with_libtiff(image)
    if layout.compression == _JPEG and layout.bits == 8 and layout.samples in (1, 3, 4):
        tables = fields[_JPEG_TABLES].content if _JPEG_TABLES in fields else b""
        check_jpegs(len(lengths))
        parts = [memoryview(encoded)[at : at + length] for at, length in zip(layout.offsets, lengths, strict=False)]
        return LateImage("TIFF", image.mode, image.size, partial(_read_if_complete, image, tables, parts), stated)
    return image


def _read_if_complete(image: Image.Image, tables: bytes, parts: Sequence[memoryview]) -> Image.Image:
    """libtiff fills the missing part of a JPEG with grey. Raises ImageError or whatever opening a JPEG may raise."""
    for part in parts:
        # The tables are a JPEG of their own: they come between the start marker and the rest.
        open_jpeg(b"".join([part[:2], tables[2:-2], part[2:]]), image.width * image.height).load()
    image.load()
    return image


def _read_with_libtiff(image: Any) -> None:
    """Pillow's own reader of uncompressed files does not support subsampled YCbCr."""
    image._mode, image.use_load_libtiff = "RGB", True
    image.tile = [ImageFile._Tile("libtiff", (0, 0, *image.size), 0, ("RGBX", False, image.tag_v2.offset))]
