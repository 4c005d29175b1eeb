"""Pictures in every format and variant, and spoilt copies of them: the same for the same seed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from tests.models.formats.pictures import bmp, chunk, gif, graphic_control, info_header, png, tiff

RANDOM = np.random.default_rng(2)
PHOTO = Image.fromarray(RANDOM.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((40, 30), Image.Resampling.BICUBIC)
GREY_16 = Image.fromarray(RANDOM.integers(0, 65_536, (24, 31), dtype=np.uint16))
SAMPLES = RANDOM.integers(0, 65_536, (6, 8), dtype=np.uint16).astype("<u2")
FLOATS_LE = RANDOM.random((6, 8)).astype("<f4").tobytes()
SIZE = {256: 8, 257: 6, 278: 6}
PLANES = {258: (16, 16), 262: 1, 277: 2, 284: 2, 338: 1, 273: (8, 56), 279: (48, 48)}
MASKS = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
FLOATS = Image.fromarray(RANDOM.random((9, 11), dtype=np.float32))


def encode(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = 6, "maker"
    return tags


ANIMATED = {"save_all": True, "append_images": [PHOTO.rotate(90)]}
PICTURES: dict[str, bytes] = {
    "jpeg": encode(PHOTO, "JPEG", exif=exif()),
    "jpeg grey": encode(PHOTO.convert("L"), "JPEG"),
    "jpeg progressive": encode(PHOTO, "JPEG", progressive=True),
    "jpeg cmyk": encode(PHOTO.convert("CMYK"), "JPEG"),
    "jpeg of two": encode(PHOTO, "MPO", **ANIMATED),
    "png": encode(PHOTO, "PNG", exif=exif()),
    "png palette": encode(PHOTO.quantize(16), "PNG", transparency=bytes([0, 128])),
    "png 16 bit": encode(GREY_16, "PNG", transparency=3),
    "png grey and alpha": encode(PHOTO.convert("LA"), "PNG"),
    "png animated": encode(PHOTO, "PNG", **ANIMATED),
    "webp": encode(PHOTO, "WEBP", exif=exif()),
    "webp lossless": encode(PHOTO.convert("RGBA"), "WEBP", lossless=True),
    "webp animated": encode(PHOTO, "WEBP", **ANIMATED),
    "gif": encode(PHOTO, "GIF", **ANIMATED),
    "gif with a transparent colour": encode(PHOTO.quantize(8), "GIF", transparency=1),
    "bmp": encode(PHOTO, "BMP"),
    "bmp palette": encode(PHOTO.quantize(16), "BMP"),
    "bmp one bit": encode(PHOTO.convert("1"), "BMP"),
    "tiff": encode(PHOTO, "TIFF", exif=exif()),
    "tiff lzw": encode(PHOTO, "TIFF", compression="tiff_lzw"),
    "tiff jpeg": encode(PHOTO, "TIFF", compression="jpeg"),
    "tiff deflate": encode(PHOTO, "TIFF", compression="tiff_adobe_deflate"),
    "tiff group4": encode(PHOTO.convert("1"), "TIFF", compression="group4"),
    "tiff cmyk": encode(PHOTO.convert("CMYK"), "TIFF"),
    "tiff palette": encode(PHOTO.quantize(16), "TIFF", compression="packbits"),
    "tiff 16 bit": encode(GREY_16, "TIFF"),
    "tiff float": encode(FLOATS, "TIFF"),
    "tiff white is 0": tiff(">", SAMPLES.astype(">u2").tobytes(), {**SIZE, 258: 16, 262: 0, 274: 6}),
    "tiff planes": tiff("<", SAMPLES.tobytes(), PLANES | {**SIZE, 256: 4}),
    "tiff deflated floats": tiff("<", zlib.compress(FLOATS_LE), {**SIZE, 258: 32, 262: 1, 259: 8, 317: 3, 339: 3}),
    "tiff of 12 bits": tiff("<", SAMPLES.tobytes(), {**SIZE, 256: 10, 258: 12, 262: 1}),
    "bmp with masks": bmp(info_header(8, 6, 32, 3, length=108, more=MASKS), SAMPLES.tobytes() * 2),
    "png with a transparent colour": encode(PHOTO, "PNG", transparency=(1, 2, 3)),
    "png 16 bit with a transparent colour": png(
        16, 2, *(SAMPLES.tobytes()[:48],) * 5, width=8, before=chunk(b"tRNS", b"\0\1\0\2\0\3")
    ),
    "png with a profile": encode(
        PHOTO, "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ),
    "gif on a canvas": gif((9, 7), (2, 3, 2, 1), [1, 2], before=graphic_control(1)),
}


def mutant(encoded: bytes, random: np.random.Generator, reach: int) -> bytes:
    """1 to 8 of the first `reach` bytes replaced, mostly with the values at which lengths and signs overflow."""
    spoiled = bytearray(encoded)
    for place in random.integers(0, min(reach, len(spoiled)), random.integers(1, 9)):
        spoiled[place] = random.choice([0, 1, 127, 128, 255, random.integers(0, 256)])
    return bytes(spoiled)


def with_right_checksums(encoded: bytes) -> bytes:
    """A PNG whose chunks have other contents and right checksums: else nothing after those would be reached."""
    right, place = bytearray(encoded[:8]), 8
    while place + 12 <= len(encoded):
        (length,) = struct.unpack_from(">I", encoded, place)
        body = encoded[place + 4 : place + 8 + length]
        right += encoded[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return bytes(right)


def cut(encoded: bytes, random: np.random.Generator) -> bytes:
    return encoded[: random.integers(0, len(encoded))]


def _piece(encoded: bytes, random: np.random.Generator) -> slice:
    start = int(random.integers(0, len(encoded)))
    return slice(start, start + int(random.integers(1, 64)))


def without_a_piece(encoded: bytes, random: np.random.Generator) -> bytes:
    piece = _piece(encoded, random)
    return encoded[: piece.start] + encoded[piece.stop :]


def with_a_piece_repeated(encoded: bytes, random: np.random.Generator) -> bytes:
    piece = _piece(encoded, random)
    return encoded[: piece.stop] + encoded[piece] * int(random.integers(1, 200)) + encoded[piece.stop :]


def with_a_piece_of_another(encoded: bytes, random: np.random.Generator) -> bytes:
    other = PICTURES[list(PICTURES)[random.integers(0, len(PICTURES))]]
    return encoded[: _piece(encoded, random).start] + other[_piece(other, random).start :]


def with_a_wide_number(encoded: bytes, random: np.random.Generator) -> bytes:
    """Two or four bytes become a length that is about to overflow."""
    spoiled, place = bytearray(encoded), int(random.integers(0, len(encoded)))
    number = random.choice([0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
    layout = str(random.choice(["<H", ">H", "<I", ">I"]))
    spoiled[place : place + struct.calcsize(layout)] = struct.pack(layout, number % (1 << 8 * struct.calcsize(layout)))
    return bytes(spoiled)


def behind_the_checksums(encoded: bytes, random: np.random.Generator) -> bytes:
    spoiled = mutant(encoded, random, 140)
    return with_right_checksums(spoiled) if encoded.startswith(b"\x89PNG") else spoiled


WAYS: list[Callable[[bytes, np.random.Generator], bytes]] = [
    lambda encoded, random: mutant(encoded, random, len(encoded)),
    lambda encoded, random: mutant(encoded, random, 120),
    *(behind_the_checksums, cut, without_a_piece, with_a_piece_repeated, with_a_piece_of_another, with_a_wide_number),
]


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Every picture in turn, each time spoilt in another way."""
    random = np.random.default_rng(seed)
    pictures = list(PICTURES.values())
    for number in range(count):
        encoded = pictures[number % len(pictures)]
        yield WAYS[random.integers(0, len(WAYS))](encoded, random)
