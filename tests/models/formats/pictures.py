"""Small pictures put together byte by byte, for what no encoder at hand writes."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.preprocess import decode

Pixels = NDArray[Any]
WHITE = [255, 255, 255]


def pixels(encoded: bytes) -> list[Any]:
    return np.asarray(decode(encoded)).tolist()


def greys(encoded: bytes) -> list[int]:
    """Of a picture of one row, which must be grey."""
    (row,) = pixels(encoded)
    assert all(red == green == blue for red, green, blue in row)
    return [red for red, _, _ in row]


def encode(image: Image.Image | Pixels, format_: str, **options: Any) -> bytes:
    file = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format_, **options)
    return file.getvalue()


def exif(orientation: int) -> bytes:
    """One entry, without the six bytes of JPEG's prefix."""
    return b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)


# --- PNG


def chunk(kind: bytes, content: bytes = b"", *, damaged: bool = False) -> bytes:
    checksum = zlib.crc32(kind + content) ^ damaged
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_parts(bits: int, colour: int, *rows: bytes, width: int) -> tuple[bytes, bytes]:
    """Signature with IHDR, and IDAT; colour 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header, chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))


def png(bits: int, colour: int, *rows: bytes, width: int, before: bytes = b"", behind: bytes = b"") -> bytes:
    """`before` and `behind` the image data."""
    head, data = png_parts(bits, colour, *rows, width=width)
    return head + before + data + behind + chunk(b"IEND")


# --- JPEG


def segment(marker: int, content: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2 if length is None else length) + content


def with_segment(jpeg: bytes, piece: bytes) -> bytes:
    return jpeg[:2] + piece + jpeg[2:]


def icc_segments(profile: bytes, size: int = 60_000) -> bytes:
    pieces = [profile[place : place + size] for place in range(0, len(profile), size)]
    return b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([number, len(pieces)]) + piece) for number, piece in enumerate(pieces, 1)
    )


# --- GIF

# LZW of 2-bit codes, each after a clear code, so that no table is needed: 4 clears, 5 ends, 0 to 3 are pixels.


def _lzw(indices: list[int], *, ended: bool = True) -> bytes:
    codes = [code for index in indices for code in (4, index)] + [5] * ended
    bits = sum(code << 3 * place for place, code in enumerate(codes))
    data = bits.to_bytes((3 * len(codes) + 7) // 8, "little")
    return b"\2" + bytes([len(data)]) + data + b"\0"


GIF_PALETTE = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])


def gif(
    screen: tuple[int, int],
    frame: tuple[int, int, int, int],
    indices: list[int],
    *,
    before: bytes = b"",
    flags: int = 0,
    local: bytes = b"",
    trailer: bytes = b";",
    ended: bool = True,
) -> bytes:
    """`frame`: left, top, width, height; four colours: red, green, blue, nearly black."""
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x81, 0, 0) + GIF_PALETTE
    descriptor = b"," + struct.pack("<HHHHB", *frame, flags | (0x81 if local else 0)) + local
    return head + before + descriptor + _lzw(indices, ended=ended) + trailer


def graphic_control(transparent: int | None) -> bytes:
    return b"\x21\xf9\4" + bytes([transparent is not None, 0, 0, transparent or 0]) + b"\0"


# --- BMP


def bmp(
    header: bytes,
    pixels: bytes,
    *,
    between: bytes = b"",
    size: int | None = None,
    offset: int | None = None,
) -> bytes:
    """`between` header and pixels: masks, palette. `size` and `offset` as the file header states them."""
    place = 14 + len(header) + len(between)
    stated = place + len(pixels) if size is None else size
    start = struct.pack("<2sIHHI", b"BM", stated, 0, 0, place if offset is None else offset)
    return start + header + between + pixels


def info_header(
    width: int, height: int, bits: int, compression: int = 0, *, colours: int = 0, length: int = 40, more: bytes = b""
) -> bytes:
    head = struct.pack("<IiiHHIIiiII", length, width, height, 1, bits, compression, 0, 0, 0, colours, 0)
    return (head + more).ljust(length, b"\0")


# --- TIFF

_SIZES = {1: "B", 2: "s", 3: "H", 4: "I", 7: "s", 16: "Q"}


def tiff(order: str, data: bytes, tags: dict[int, Any], *, big: bool = False, more: list[bytes] | None = None) -> bytes:
    """One strip of `data` under `tags` (a number, numbers, bytes, or (type, [numbers])); `more`: raw entries."""
    start = 16 if big else 8
    tags = {273: start, 279: len(data), 277: 1, 259: 1, **tags}
    rows, place = [], start + len(data)
    heap = b""
    short = 8 if big else 4
    for tag, value in sorted(tags.items()):
        kind, count, content = _field(order, value)
        if len(content) <= short:
            field = content.ljust(short, b"\0")
        else:
            field = struct.pack(order + ("Q" if big else "I"), place + len(heap))
            heap += content
        rows.append(struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, count) + field)
    rows += more or []
    directory = struct.pack(order + ("Q" if big else "H"), len(rows)) + b"".join(rows) + bytes(short)
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0) if big else (42,)), place + len(heap))
    return head + data + heap + directory


def _field(order: str, value: Any) -> tuple[int, int, bytes]:
    if isinstance(value, bytes):
        return 7, len(value), value
    kind, values = value if isinstance(value, tuple) and isinstance(value[-1], list) else (None, value)
    values = list(values) if isinstance(values, (tuple, list)) else [values]
    kind = kind or (4 if max(values) > 65_535 else 3)
    return kind, len(values), struct.pack(f"{order}{len(values)}{_SIZES[kind]}", *values)
