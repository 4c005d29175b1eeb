"""BMP: rewrites every header as the one that Pillow reads best, and decodes bit masks and runs, which Pillow supports
only in part.

The file size in the header is ignored. (Microsoft, "Bitmap Storage"; the OS/2 1 and 2 headers.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.formats.bounds import BYTES_PER_FURTHER_READ, MAX_READS_OF_BMP, too_many_pieces
from models.formats.opening import (
    MAX_PROFILE_BYTES,
    HeaderError,
    LateImage,
    Statements,
    damaged,
    open_with_pillow,
    unsupported,
)

_FILE_HEADER_BYTES = 14
# OS/2's second header may end after any field from the depth on; what it lacks is zero.
_OS2_1, _SHORTEST_OS2_2, _OS2_2, _INFO, _V2, _V3, _V4, _V5 = 12, 16, 64, 40, 52, 56, 108, 124
_WINDOWS = (_OS2_1, _INFO, _V2, _V3, _V4, _V5)
_RGB, _RLE8, _RLE4, _MASKS, _JPEG, _PNG, _ALPHA_MASKS = range(7)
# What a run of length 0 means; other values count literal colours. And a step that no run makes.
_END_OF_ROW, _END_OF_BITMAP, _DELTA = range(3)
_NEXT_ROW = (-1, 1)
_READS_A_RUN = 2
_RUNS = frozenset({(8, _RLE8), (4, _RLE4)})
_COMPRESSIONS = {_JPEG: "a BMP that holds a JPEG", _PNG: "a BMP that holds a PNG"}
# In a version 5 header: the kind of colour space, and the place (from the header) and the length of its profile.
_COLOUR_SPACE_AT, _PROFILE_AT = 56, 112
_EMBEDDED = b"DEBM"
_BITS = frozenset({1, 2, 4, 8, 16, 24, 32})
# Red, green, blue and alpha masks if the header gives none.
_NO_MASKS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}


class _Header(NamedTuple):
    """`place`: offset of the pixels; `palette`: four bytes per entry."""

    width: int
    height: int
    top_down: bool
    bits: int
    compression: int
    masks: tuple[int, ...]
    palette: bytes
    place: int


def open_bmp(encoded: bytes, max_pixels: int) -> Image.Image:
    """May raise anything; ImageError for unsupported formats."""
    header, stated = _read_header(encoded), Statements(profile=_profile(encoded))
    size = header.width, header.height
    if header.bits in _NO_MASKS and header.compression in (_MASKS, _ALPHA_MASKS):
        mode = "RGBA" if header.masks[3] else "RGB"
        return LateImage("BMP", mode, size, partial(_read_masked, encoded, header), stated)
    if (header.bits, header.compression) in _RUNS:
        return LateImage("BMP", "RGB", size, partial(_read_runs, encoded, header), stated)
    pixels = memoryview(encoded)[header.place :]
    if header.bits == 2:
        if header.width * header.height <= max_pixels:  # otherwise this is the error
            pixels = memoryview(_in_4_bits(pixels, header))
        header = header._replace(bits=4)
    return open_with_pillow(_rewritten(header, pixels), "BMP", stated)


def _read_header(encoded: bytes) -> _Header:
    (place, length) = struct.unpack_from("<II", encoded, 10)
    start = _FILE_HEADER_BYTES
    if length == _OS2_1:
        width, height, _, bits = struct.unpack_from("<HHHH", encoded, start + 4)
        compression, colours = _RGB, 0
    elif _SHORTEST_OS2_2 <= length <= _OS2_2 or length in (_V4, _V5):
        fields = encoded[start : start + length].ljust(_INFO, b"\0")
        width, height, _, bits, compression, _, _, _, colours = struct.unpack_from("<iiHHIIiiI", fields, 4)
    else:
        raise unsupported(f"a BMP with a header of {length} bytes")
    if length not in _WINDOWS and compression > _RLE4:
        raise unsupported("an OS/2 BMP with its own compression")
    if compression in _COMPRESSIONS or compression > _ALPHA_MASKS:
        raise unsupported(_COMPRESSIONS.get(compression, f"a BMP of compression {compression}"))
    if width <= 0 or height == 0:
        raise HeaderError
    if bits not in _BITS:
        raise unsupported(f"a BMP of {bits} bits per pixel")
    masks, behind = _read_masks(encoded, length, bits, compression)
    palette, behind = _read_palette(encoded, behind, bits, colours, 3 if length == _OS2_1 else 4)
    place = place if start + length <= place < len(encoded) else behind
    return _Header(width, abs(height), height < 0, bits, compression, masks, palette, place)


def _profile(encoded: bytes) -> bytes | None:
    """The ICC profile of a version 5 header; None for a profile that is a file's name, and for one cut short."""
    (length,) = struct.unpack_from("<I", encoded, _FILE_HEADER_BYTES)
    start = _FILE_HEADER_BYTES
    if length != _V5 or not encoded.startswith(_EMBEDDED, start + _COLOUR_SPACE_AT):
        return None
    place, size = struct.unpack_from("<II", encoded, start + _PROFILE_AT)
    profile = encoded[start + place : start + place + min(size, MAX_PROFILE_BYTES)]
    return profile if len(profile) == size else None


def _read_masks(encoded: bytes, length: int, bits: int, compression: int) -> tuple[tuple[int, ...], int]:
    """The masks (red, green, blue, alpha) and the offset after the header. Masks follow a short header."""
    start, behind = _FILE_HEADER_BYTES + _INFO, _FILE_HEADER_BYTES + length
    if compression not in (_MASKS, _ALPHA_MASKS):
        return _NO_MASKS.get(bits, (0, 0, 0, 0)), behind
    count = 4 if compression == _ALPHA_MASKS or length >= _V3 else 3
    masks = struct.unpack_from(f"<{count}I", encoded, start)
    if not any(masks):
        masks = _NO_MASKS.get(bits, masks)
    if bits == 24 and masks[:3] != _NO_MASKS[32][:3]:
        raise unsupported("a 24-bit BMP with masks of its own")
    return (*masks, 0)[:4], max(behind, start + 4 * count)


def _read_palette(encoded: bytes, place: int, bits: int, colours: int, entry: int) -> tuple[bytes, int]:
    """Four bytes per colour index, black for missing colours; and the offset after the palette."""
    if bits > 8:
        return b"", place
    count = colours if 0 < colours <= 1 << bits else 1 << bits
    found = encoded[place : place + entry * count]
    if entry == 3:
        found = b"".join(found[at : at + 3] + b"\0" for at in range(0, len(found), 3))
    # Pillow treats a palette of ascending greys as 8-bit grey, whatever the depth; one more entry prevents that.
    return found.ljust(4 << bits, b"\0") + (b"\0" * 4 if bits < 8 else b""), place + entry * count


def _in_4_bits(pixels: memoryview, header: _Header) -> bytes:
    """Pixels of 2 bits, of Windows CE. Raises ImageError if some are missing."""
    if header.compression != _RGB:
        raise unsupported("a compressed BMP of 2 bits per pixel")
    stride, wanted = ((header.width * bits + 31) // 32 * 4 for bits in (2, 4))
    if len(pixels) < stride * header.height:
        raise damaged("BMP")
    rows = np.frombuffer(pixels, np.uint8, stride * header.height).reshape(header.height, stride)
    upper, lower = rows >> 4, rows & 15
    pairs = np.stack([(upper & 12) << 2 | upper & 3, (lower & 12) << 2 | lower & 3], axis=2)
    return pairs.reshape(header.height, 2 * stride)[:, :wanted].tobytes()


def _rewritten(header: _Header, pixels: memoryview) -> bytes:
    """The same picture under a 40-byte header."""
    place = _FILE_HEADER_BYTES + _INFO + len(header.palette)
    height = -header.height if header.top_down else header.height
    compression = _RGB if header.bits == 24 else header.compression
    size, colours = place + len(pixels), len(header.palette) // 4
    start = struct.pack("<2sIHHI", b"BM", size & 0xFFFFFFFF, 0, 0, place)
    start += struct.pack("<IiiHHIIiiII", _INFO, header.width, height, 1, header.bits, compression, 0, 0, 0, colours, 0)
    return b"".join([start, header.palette, pixels])


def _read_masked(encoded: bytes, header: _Header) -> Image.Image:
    """Pixels of 16 or 32 bits -> RGB or RGBA."""
    width, height = header.width, header.height
    masks = header.masks if header.masks[3] else header.masks[:3]
    stride = (width * header.bits + 31) // 32 * 4
    if header.place + stride * (height - 1) + width * header.bits // 8 > len(encoded):
        raise damaged("BMP")
    picture = np.empty((height, width, len(masks)), np.uint8)
    for row in range(height):
        samples = np.frombuffer(encoded, f"<u{header.bits // 8}", width, header.place + row * stride)
        for channel, mask in enumerate(masks):
            picture[row, :, channel] = _channel(samples, mask)
    if len(masks) == 4 and not picture[:, :, 3].any():
        picture[:, :, 3] = 255  # nobody draws that: the program did not know transparency, and filled with zeros
    return Image.fromarray(picture if header.top_down else picture[::-1])


def _read_runs(encoded: bytes, header: _Header) -> Image.Image:
    """Run-length encoded pixels. Those that are skipped, and those behind an end of the bitmap, have colour 0; so does
    an empty row, which Pillow leaves out.

    Raises IndexError if the data end before, and ImageError for more runs than a picture needs.
    """
    width, height, picture = header.width, header.height, bytearray(header.width * header.height)
    x, y = 0, 0
    for step, colours in _runs(encoded, header.place, header.bits):
        x, y = (0, y + 1) if step == _NEXT_ROW else (x + step[0], y + step[1])
        if y >= height:
            break
        fitting = colours[: max(width - x, 0)]
        picture[y * width + x : y * width + x + len(fitting)] = fitting
        x += len(colours)
        if y == height - 1 and x >= width:
            break
    image = Image.frombytes("P", (width, height), bytes(picture))
    image.putpalette(header.palette[: 4 << header.bits], "BGRX")
    rgb = image.convert("RGB")
    return rgb if header.top_down else rgb.transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def _runs(encoded: bytes, place: int, bits: int) -> Iterator[tuple[tuple[int, int], bytes]]:
    """(columns and rows to go on, colours), to the end of the bitmap."""
    for _ in range((MAX_READS_OF_BMP + len(encoded) // BYTES_PER_FURTHER_READ) // _READS_A_RUN):
        count, value = encoded[place], encoded[place + 1]
        place += 2
        if count:
            yield (0, 0), _colours(encoded[place - 1 : place] * count, bits)[:count]
        elif value == _END_OF_ROW:
            yield _NEXT_ROW, b""
        elif value == _END_OF_BITMAP:
            return
        elif value == _DELTA:
            yield (encoded[place], encoded[place + 1]), b""
            place += 2
        else:
            length = (value * bits + 7) // 8
            if place + length > len(encoded):
                raise damaged("BMP")
            yield (0, 0), _colours(encoded[place : place + length], bits)[:value]
            place += length + length % 2
    raise too_many_pieces()


def _colours(packed: bytes, bits: int) -> bytes:
    return packed if bits == 8 else bytes(colour for pair in packed for colour in (pair >> 4, pair & 15))


def _channel(samples: NDArray[Any], mask: int) -> NDArray[np.uint8]:
    """The bits under the mask, scaled to 0..255. Raises ImageError if the mask has gaps."""
    if mask == 0:
        return np.zeros(len(samples), np.uint8)
    shift = (mask & -mask).bit_length() - 1
    most = mask >> shift
    if most & (most + 1):
        raise unsupported("a BMP with masks of separate bits")
    values = (samples & samples.dtype.type(mask)) >> samples.dtype.type(shift)
    levels: NDArray[np.uint64] = (values.astype(np.uint64) * 510 + most) // (2 * most)
    return levels.astype(np.uint8)
