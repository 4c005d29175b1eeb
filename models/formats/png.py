"""PNG: keeps the chunks that determine the pixels, in the order that Pillow needs.

1. other chunks are ignored, however odd, damaged, large or misplaced;
2. a wrong checksum of IHDR, PLTE or tRNS means damaged pixels, and so does one of the image data unless their other
   checksum is right: each chunk has a CRC-32, the whole zlib stream an Adler-32;
3. everything after the image data may be missing, including IEND;
4. tRNS matches pixels of the same sample value at every bit depth.

ISO 15948 (PNG, third edition), sections 5 and 11.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from models.formats import exif
from models.formats.bounds import BoundedFile, check_reads
from models.formats.opening import (
    MAX_PROFILE_BYTES,
    HeaderError,
    LateImage,
    Statements,
    bands,
    damaged,
    inflate,
    unsupported,
    with_statements,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Pillow reads a chunk in three parts: head, content and checksum.
_READS_A_CHUNK = 3
_MAX_TEXT_BYTES = 1 << 20
# Colour profiles that are inflated until one can be read. The standard allows one.
_MAX_PROFILES = 2
_ZLIB_HEADER_BYTES, _CHECKSUM_BYTES = 2, 4
_GREY, _RGB, _PALETTE = 0, 2, 3
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT"})
# By colour type: where a palette is only suggested, or tRNS has no meaning, they are metadata.
_CHECKED = {_GREY: {b"IHDR", b"tRNS"}, _RGB: {b"IHDR", b"tRNS"}, _PALETTE: {b"IHDR", b"tRNS", b"PLTE"}}
# Pillow scales samples of fewer than 8 bits to 0..255, so the transparent value is scaled too.
_SPREAD = {1: 1, 2: 85, 4: 17, 8: 1, 16: 1}
_EXIF_TEXTS = (b"Raw profile type exif", b"Raw profile type APP1")
_XMP_TEXT = b"XML:com.adobe.xmp"

Chunk = tuple[bytes, memoryview, bool]


def open_png(encoded: bytes, max_pixels: int) -> Image.Image:
    """May raise anything; ImageError for unsupported formats."""
    chunks: dict[bytes, list[memoryview]] = {}
    wrong: set[bytes] = set()
    for kind, content, right in _chunks(encoded):
        if kind == b"IEND":
            break
        if kind[0] & 0x20 == 0 and kind not in _CRITICAL:
            raise unsupported(f"a PNG with the critical chunk {kind.decode('latin-1')!r}")
        # These chunks are valid only before the image data. EXIF and texts may follow it.
        late = b"IDAT" in chunks and kind in (b"PLTE", b"tRNS", b"iCCP")
        if not right and not late:
            wrong.add(kind)
        if kind == b"PLTE" and not late:
            chunks.pop(b"tRNS", None)  # it must follow the palette; libpng and browsers ignore it here
        if (right or kind == b"IDAT") and not late:
            chunks.setdefault(kind, []).append(content)
    image_data = chunks.get(b"IDAT", [])
    cut = bool(image_data) and encoded.endswith(bytes(image_data[-1][-_CHECKSUM_BYTES:]))  # it ends in them
    return _open(chunks, wrong, cut, max_pixels)


def _chunks(encoded: bytes) -> Iterator[Chunk]:
    """(type, content, whether the checksum is right). A last IDAT that is cut short counts as right."""
    view, place, reads = memoryview(encoded), len(SIGNATURE), 0
    while place + 8 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, place)
        if not kind.isalpha():
            return
        reads += _READS_A_CHUNK
        check_reads(reads, encoded)
        content = view[place + 8 : place + 8 + length]
        stored = encoded[place + 8 + length : place + 12 + length]
        if len(stored) == 4:
            yield kind, content, zlib.crc32(content, zlib.crc32(kind)) == struct.unpack(">I", stored)[0]
        else:
            yield kind, content, kind == b"IDAT"
        place += 12 + length


class _Filled(PngImagePlugin.PngImageFile):
    """A picture that is filled with one value before it is decoded. A stream that ends too early leaves the rest as it
    is, without an error."""

    def __init__(self, encoded: bytes, filling: int) -> None:
        super().__init__(BoundedFile(encoded))
        self._filling = filling
        self.last = _last_pixel(*self.size, interlaced=bool(self.info.get("interlace")))
        self.unread: Any = None

    def load_prepare(self) -> None:
        count = len(self.getbands())
        self.im = Image.new(self.mode, self.size, (self._filling,) * count if count > 1 else self._filling).im
        self.unread = self.im.getpixel(self.last)
        super().load_prepare()


def _last_pixel(width: int, height: int, *, interlaced: bool) -> tuple[int, int]:
    """The pixel that comes last: of an interlaced picture, in the last of the passes that are not empty."""
    if not interlaced:
        return width - 1, height - 1
    return (width - 1, height // 2 * 2 - 1) if height > 1 else (max(width // 2 * 2 - 1, 0), 0)


class _Png(_Filled):
    """Finds out when it is decoded whether rows are missing, and whether the stream's Adler-32 is wrong."""

    def __init__(self, encoded: bytes, repaired: Callable[[], bytes | None]) -> None:
        super().__init__(encoded, 0x5A)
        self.encoded, self._repaired = encoded, repaired

    def load(self) -> Any:
        if tile := list(self.tile):
            try:
                super().load()
            except OSError:
                repaired = self._repaired()
                if repaired is None:
                    raise
                self.encoded = repaired
                self.im = self._decoded_again(tile, 0x5A)
            if self.im.getpixel(self.last) == self.unread:
                self._check_last_row(tile)
        return super().load()

    def _decoded_again(self, tile: list[Any], filling: int) -> Any:
        again = _Filled(self.encoded, filling)
        again.tile = tile
        again.load()
        return again.im

    def _check_last_row(self, tile: list[Any]) -> None:
        if self._decoded_again(tile, 0).getpixel(self.last) != self.unread:
            raise damaged("PNG")


def _repaired(data: Sequence[bytes | memoryview], most: int) -> bytes | None:
    """A zlib stream -> the same with a right header and Adler-32; None if there is no complete one, or if it holds more
    than about `most` bytes."""
    joined = b"".join(data)
    stream, checksum, at_once = zlib.decompressobj(-zlib.MAX_WBITS), zlib.adler32(b""), 1 << 20
    left = joined[_ZLIB_HEADER_BYTES:]
    try:
        while not stream.eof and most > 0 and (content := stream.decompress(left, at_once)):
            checksum, left = zlib.adler32(content, checksum), stream.unconsumed_tail
            most -= len(content)
    except zlib.error:
        return None
    end = len(joined) - len(stream.unused_data)
    return b"\x78\x9c" + joined[_ZLIB_HEADER_BYTES:end] + struct.pack(">I", checksum) if stream.eof else None


def _open(chunks: dict[bytes, list[memoryview]], wrong: set[bytes], cut: bool, max_pixels: int) -> Image.Image:
    """`wrong`: the chunks whose CRC-32 is; `cut`: within the image data, or right after them."""
    header, data = chunks.get(b"IHDR", []), list[bytes | memoryview](chunks.get(b"IDAT", []))
    if len(header) != 1 or len(header[0]) != 13 or not data:
        raise damaged("PNG") if b"IHDR" in wrong else HeaderError
    width, height, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", header[0])
    if interlace > 1:
        raise HeaderError
    if wrong & _CHECKED.get(colour, {b"IHDR"}):
        raise damaged("PNG")
    # At most four samples per pixel; a row of each of the seven passes has its own filter and padding.
    most = (height + 8) * (width * min(bits, 16) // 2 + 8) if width * height <= max_pixels else 0
    if cut or b"IDAT" in wrong:
        data = _verified(data, most, proven=b"IDAT" not in wrong)
    palette = _palette(chunks.get(b"PLTE", []), bits) if colour == _PALETTE else b""
    key = _transparent(chunks.get(b"tRNS", []), bits, colour, len(palette) // 3)
    clean = partial(_file, header[0], palette.ljust(768, b"\0") if palette else b"", key)
    stated = _statements(chunks)

    def repaired() -> bytes | None:
        whole = _repaired(data, most)
        return clean([whole]) if whole else None

    if (bits, colour) == (16, _RGB) and key:
        return LateImage("PNG", "RGBA", (width, height), partial(_read_16_bits, clean(data), repaired, key), stated)
    return with_statements(_Png(clean(data), repaired), stated)


def _verified(data: list[bytes | memoryview], most: int, *, proven: bool) -> list[bytes | memoryview]:
    """The stream, with its Adler-32 if that was cut off. Raises ImageError if it is wrong and nothing else proves the
    data."""
    repaired = _repaired(data, most)
    stated = b"".join(data)
    if not proven and (repaired is None or not stated.startswith(repaired[_ZLIB_HEADER_BYTES:], _ZLIB_HEADER_BYTES)):
        raise damaged("PNG")
    return [repaired] if repaired else data


def _file(header: memoryview, palette: bytes, key: bytes, data: Sequence[bytes | memoryview]) -> bytes:
    """One chunk for all image data, which saves reads. Pillow does not check its checksum; `_chunks` has."""
    length = sum(map(len, data))
    parts = ((b"IHDR", header), (b"PLTE", palette), (b"tRNS", key))
    before = [_chunk(kind, content) for kind, content in parts if content]
    return b"".join([SIGNATURE, *before, struct.pack(">I4s", length, b"IDAT"), *data, bytes(4), _chunk(b"IEND", b"")])


def _chunk(kind: bytes, content: bytes | memoryview) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return b"".join([struct.pack(">I4s", len(content), kind), content, struct.pack(">I", checksum)])


def _palette(found: list[memoryview], bits: int) -> bytes:
    """RGB entries, as many as the samples can address. Raises ImageError unless there is exactly one palette."""
    if len(found) != 1 or len(found[0]) % 3 or not found[0]:
        raise damaged("PNG")
    return bytes(found[0][: 3 << bits])


def _transparent(found: list[memoryview], bits: int, colour: int, colours: int) -> bytes:
    """tRNS as Pillow needs it; empty if there is none. One of the wrong length is ignored, as in libpng."""
    key = bytes(found[0]) if found else b""
    if colour == _PALETTE:
        return key if len(key) <= colours else b""
    if colour not in (_GREY, _RGB) or len(key) != (2 if colour == _GREY else 6):
        return b""
    values = struct.unpack(f">{len(key) // 2}H", key)
    most = (1 << bits) - 1
    return struct.pack(f">{len(values)}H", *((value & most) * _SPREAD.get(bits, 1) for value in values))


def _read_16_bits(encoded: bytes, repaired: Callable[[], bytes | None], key: bytes) -> Image.Image:
    """RGB of 16 bits with a transparent colour -> RGBA of 8.

    Pillow keeps only the upper bytes, so other colours could match the transparent one. The lower bytes are read by
    decoding a second time in the other byte order.
    """
    upper = _Png(encoded, repaired)
    upper.load()
    lower = _Png(upper.encoded, repaired)
    lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
    alpha = Image.new("L", upper.size)
    for (top, one), (_, other) in zip(bands(upper), bands(lower), strict=True):
        differs = np.zeros((one.height, one.width), np.bool_)
        for channel in range(3):
            for band, byte in ((one, key[2 * channel]), (other, key[2 * channel + 1])):
                differs |= np.asarray(band.getchannel(channel)) != byte
        alpha.paste(Image.fromarray(differs.astype(np.uint8) * np.uint8(255)), (0, top))
    upper.putalpha(alpha)
    return upper


def _statements(chunks: dict[bytes, list[memoryview]]) -> Statements:
    profiles = (_profile(bytes(content)) for content in chunks.get(b"iCCP", [])[:_MAX_PROFILES])
    profile = next((profile for profile in profiles if profile), None)
    texts = _texts(chunks)
    exifs = [bytes(content) for content in chunks.get(b"eXIf", [])]
    exifs += [_of_hex(texts[name]) for name in _EXIF_TEXTS if name in texts]
    return Statements(exif.orientation(*exifs, xmp=texts.get(_XMP_TEXT, b"")), profile)


def _profile(content: bytes) -> bytes | None:
    """Name, zero, method 0, compressed profile."""
    name_end = content.find(b"\0")
    if name_end < 0 or content[name_end + 1 : name_end + 2] != b"\0":
        return None
    return inflate(content[name_end + 2 :], MAX_PROFILE_BYTES)


def _texts(chunks: dict[bytes, list[memoryview]]) -> dict[bytes, bytes]:
    """The texts that may contain an orientation."""
    texts: dict[bytes, bytes] = {}
    for kind in (b"tEXt", b"zTXt", b"iTXt"):
        for content in chunks.get(kind, []):
            key = bytes(content[:80]).partition(b"\0")[0]
            if (key in _EXIF_TEXTS or key == _XMP_TEXT) and key not in texts:
                texts[key] = _text(kind, bytes(content[len(key) + 1 :])) or b""
    return texts


def _text(kind: bytes, content: bytes) -> bytes | None:
    if kind == b"tEXt":
        return content[:_MAX_TEXT_BYTES]
    if kind == b"zTXt":
        return inflate(content[1:], _MAX_TEXT_BYTES)
    text = content[2:].split(b"\0", 2)[-1]
    return inflate(text, _MAX_TEXT_BYTES) if content[:1] == b"\1" else text[:_MAX_TEXT_BYTES]


def _of_hex(text: bytes) -> bytes:
    """ImageMagick's format: an empty line, a name, a length, then the content in hexadecimal digits."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("latin-1"))
    except ValueError:
        return b""
