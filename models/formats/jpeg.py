"""JPEG: keeps the segments that determine the pixels, and checks that no block is missing.

1. application segments and comments are ignored, however malformed;
2. a picture is complete if all its blocks exist: the end marker may be missing, and its presence proves nothing, nor do
   zeros, text or other filler in place of blocks;
3. kinds of JPEG that Pillow's libjpeg-turbo cannot decode are named.

ITU-T T.81, annex B for the markers, annex G for progressive scans.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin

from models.formats import exif
from models.formats.bounds import allowed_reads, check_scans, too_many_pieces
from models.formats.opening import (
    MAX_PROFILE_BYTES,
    SILENT,
    HeaderError,
    LateImage,
    Statements,
    bands,
    damaged,
    open_with_pillow,
    unsupported,
    with_statements,
)

_START, _END = b"\xff\xd8", b"\xff\xd9"
_MARKER = re.compile(rb"\xff([\x01-\xfe])")
# A marker that ends entropy-coded data. Within the data, 0xff is followed by a zero or belongs to RST0 to RST7.
_MARKER_BEHIND_DATA = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
# Pillow reads four times per segment.
_READS_A_SEGMENT = 4
_SOS, _EOI, _DRI, _APP0, _APP1, _APP2, _APP14 = 0xDA, 0xD9, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE
# SOF0 and SOF1, both Huffman-coded; SOF2 and SOF10, Huffman-coded and arithmetic-coded.
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1}), frozenset({0xC2, 0xCA})
_ARITHMETIC = frozenset({0xC9, 0xCA})
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})  # DHT, DAC, DQT, DRI
# With COM and APPn.
_BETWEEN_SCANS = _TABLES | {0xFE, *range(0xE0, 0xF0)}
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
# libjpeg ignores shorter ones.
_JFIF, _ADOBE = (b"JFIF\0", 14), (b"Adobe", 12)
_UNSUPPORTED = {
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE, 0xDF), "a hierarchical JPEG"),
    0xCB: "an arithmetic-coded lossless JPEG",
    0xF7: "a JPEG-LS picture",
}
# Eight entropy-coded bytes of ones, a pattern that no Huffman code starts with. libjpeg reads up to 8 bytes ahead. If
# all blocks are there, it never decodes these bytes. If blocks are missing, it soon runs out of them and, without an
# end marker, asks for more data, which Pillow reports as truncation.
_AHEAD = b"\xff\0" * 8
# This many bytes may follow the last block without a further check.
_SLACK = 16
# Shorter filler is not searched for, nor filler that repeats after more bytes.
_FILLING_BYTES, _MOST_REPEATED = 64, 1 << 16
# Data without a marker: if this much is left over, some of it is repeated, or replaces blocks.
_LEFT_OVER_BYTES = 512
# Zeros, white space and printable ASCII: a text of this length is not entropy-coded data.
_TEXT = np.isin(np.arange(256), [0, 9, 10, 13, *range(0x20, 0x7F)])
# A decoder that lacks blocks decodes these bytes instead, and not to the zeros that follow from an end marker.
_FILLING = bytes((151 * place + 183) % 0xFF for place in range(1024))


class _Frame(NamedTuple):
    """SOF: its marker, width times height, and the identifiers of its components."""

    marker: int
    pixels: int
    components: tuple[int, ...]


class _Scan(NamedTuple):
    """SOS: components, first and last coefficient, successive approximation's high and low bit."""

    components: tuple[int, ...]
    first: int
    last: int
    high: int
    low: int


class _Header(NamedTuple):
    """`kept`: the segments that determine the pixels, up to the first SOS; `scan`: offset of that SOS marker;
    `restarts`: whether restart markers belong to the data; `pictures`: whether further ones are announced, as by
    phones."""

    kept: list[bytes]
    frame: _Frame
    scan: int
    stated: Statements
    restarts: bool
    pictures: bool


def open_jpeg(encoded: bytes, max_pixels: int) -> Image.Image:
    """May raise anything; ImageError for unsupported formats."""
    header = _read_header(encoded)
    scan, data = _read_scan(encoded, header.scan)
    if header.frame.marker in _SEQUENTIAL and len(scan.components) == len(header.frame.components):
        end = len(encoded) - len(_END)
        if header.restarts or header.pictures or not _ends_at(encoded, end):
            end = _end_of_blocks(encoded, data, header.restarts)
        return with_statements(_OneScan(header, encoded, data, end), header.stated)
    return _open_scans(encoded, header)


def _ends_at(encoded: bytes, end: int) -> bool:
    """Whether an end marker is there, and no other one shortly before it. To search all data for markers takes longer
    than all the rest of opening, and is left to _check_blocks."""
    return encoded.endswith(_END) and not _MARKER.search(encoded, max(end - _SLACK - 1, 0), end)


class _OneScan(JpegImagePlugin.JpegImageFile):
    """A picture whose data come in one scan, followed by _AHEAD.

    The decoder gets the last bytes by themselves. If it needs none of them, something else follows the blocks, or
    replaces them.
    """

    def __init__(self, header: _Header, encoded: bytes, data: int, end: int) -> None:
        self._source = header, encoded, data, end
        picture = b"".join([*header.kept, memoryview(encoded)[header.scan : end], _AHEAD])
        super().__init__(BytesIO(picture))  # the segments are counted
        self.decodermaxblock = max(len(picture) - len(_AHEAD) - _SLACK, 1)

    def load_end(self) -> None:
        if self.fp is not None and self.fp.tell() <= self.decodermaxblock:
            _check_blocks(*self._source)


def _check_blocks(header: _Header, encoded: bytes, data: int, end: int) -> None:
    """Raises OSError or ImageError if blocks are missing before the first marker, or without the filler at the end."""
    right = _end_of_blocks(encoded, data, header.restarts)
    if right < end:
        _OneScan(header, encoded, data, right).load()
        return
    start = _start_of_filling(encoded[data:end])
    if start < end - data:
        _load_until(header, encoded, data + start + _SLACK)
    elif bytes(_FILLING_BYTES) in encoded[data:end]:  # a gap, after which the data are out of step
        raise damaged("JPEG")
    elif end - data > _LEFT_OVER_BYTES:
        with suppress(OSError):  # it needs them
            _load_until(header, encoded, end - _LEFT_OVER_BYTES)
            raise damaged("JPEG")


def _load_until(header: _Header, encoded: bytes, end: int) -> None:
    """Raises OSError if blocks are missing there."""
    _open_at_once(b"".join([*header.kept, memoryview(encoded)[header.scan : end], _AHEAD])).load()


def _start_of_filling(data: bytes) -> int:
    """The start of text or repeated bytes that reach to the end; otherwise the data's length."""
    samples = np.frombuffer(data, np.uint8)
    start = _end(~_TEXT[samples])
    last = data[-_FILLING_BYTES:]
    before = data.rfind(last, max(0, len(data) - len(last) - _MOST_REPEATED), -1)
    if before >= 0:
        distance = len(data) - len(last) - before
        start = min(start, _end(samples[distance:] != samples[:-distance]))
    return start if len(data) - start >= _FILLING_BYTES else len(data)


def _end(found: NDArray[np.bool_]) -> int:
    """Behind the last one."""
    return int(found.size - found[::-1].argmax()) if found.any() else 0


def _end_of_blocks(encoded: bytes, data: int, restarts: bool) -> int:
    """Offset of the first marker after `data`, other than restart markers in their order; or of the end."""
    samples = np.frombuffer(encoded, np.uint8, offset=min(data, len(encoded)))
    places = np.flatnonzero(samples[:-1] == 0xFF)
    kinds = samples[places + 1]
    markers = (kinds != 0) & (kinds != 0xFF)
    places, kinds = places[markers], kinds[markers]
    wrong = kinds != 0xD0 + np.arange(len(kinds)) % 8 if restarts else kinds > 0
    return data + int(places[wrong.argmax()]) if wrong.any() else len(encoded)


def _segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start and end of its content), up to and including the first SOS. Bytes between segments are skipped."""
    place, reads, most = len(_START), 0, allowed_reads(encoded)
    while found := _MARKER.search(encoded, place):
        start = found.end()
        reads += _READS_A_SEGMENT + start - 2 - place
        if reads > most:
            raise too_many_pieces()
        marker = encoded[start - 1]
        if marker in _WITHOUT_LENGTH:
            place = start
            continue
        place = start + max(int.from_bytes(encoded[start : start + 2], "big"), 2)
        yield marker, start + 2, place
        if marker in (_SOS, _EOI):
            return


def _read_header(encoded: bytes) -> _Header:
    kept, exifs, profiles, xmp = [_START], list[bytes](), list[bytes](), b""
    frame: _Frame | None = None
    pictures = False
    for marker, start, end in _segments(encoded):
        content = encoded[start:end]
        if marker in _TABLES or _is_for_libjpeg(marker, content):
            kept.append(encoded[start - 4 : end])
        elif marker in _FRAMES:
            frame = _read_frame(marker, content)
            kept.append(encoded[start - 4 : end])
        elif marker == _APP1 and content.startswith(b"Exif\0"):
            exifs.append(content[6:])
        elif marker == _APP1 and content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = content
        elif marker == _APP2 and content.startswith(b"ICC_PROFILE\0"):
            profiles.append(content[12:])
        elif marker == _APP2 and content.startswith(b"MPF\0"):
            pictures = True
        elif marker == _SOS and frame:
            restarts = any(segment[1] == _DRI and any(segment[4:6]) for segment in kept)
            return _Header(kept, frame, start - 4, _statements(exifs, xmp, profiles), restarts, pictures)
        elif marker in _UNSUPPORTED:
            raise unsupported(_UNSUPPORTED[marker])
    raise HeaderError


def _statements(exifs: list[bytes], xmp: bytes, profiles: list[bytes]) -> Statements:
    if not exifs and not xmp and not profiles:
        return SILENT
    # Long EXIF data continues in the next segment; other programs add a second block.
    return Statements(exif.orientation(b"".join(exifs), *exifs[1:], xmp=xmp), _profile(profiles))


def _is_for_libjpeg(marker: int, content: bytes) -> bool:
    """libjpeg determines the colour space from JFIF and Adobe segments."""
    name, length = {_APP0: _JFIF, _APP14: _ADOBE}.get(marker, (b"", 1 << 16))
    return len(content) >= length and content.startswith(name)


def _read_frame(marker: int, content: bytes) -> _Frame:
    bits, height, width, count = struct.unpack_from(">BHHB", content)
    components = tuple(content[6 : 6 + 3 * count : 3])
    if bits != 8:
        raise unsupported(f"a {bits}-bit JPEG")
    if height == 0:
        raise unsupported("a JPEG that states its height only after its data")
    if count not in (1, 3, 4):
        raise unsupported(f"a JPEG of {count} components")
    return _Frame(marker, width * height, components)


def _profile(pieces: list[bytes]) -> bytes | None:
    """ICC.1:2022, annex B.4: each piece starts with its number, counted from 1, and the number of pieces.

    Some programs count from 0, state a wrong number of pieces, or write the profile twice. Its own length tells
    whether it is whole.
    """
    numbered: dict[int, bytes] = {}
    for piece in pieces:
        numbered.setdefault(piece[0] if piece else 0, piece[2:])
    profile = b"".join(numbered[number] for number in sorted(numbered))
    whole = len(profile) >= 4 and len(profile) >= int.from_bytes(profile[:4], "big")
    return profile if whole and len(profile) <= MAX_PROFILE_BYTES else None


def _read_scan(encoded: bytes, place: int) -> tuple[_Scan, int]:
    """The SOS segment whose marker is at `place`, and the offset of its data."""
    length, count = struct.unpack_from(">HB", encoded, place + 2)
    components = tuple(encoded[place + 5 : place + 5 + 2 * count : 2])
    first, last, bits = struct.unpack_from(">BBB", encoded, place + 5 + 2 * count)
    return _Scan(components, first, last, bits >> 4, bits & 15), place + 2 + length


def _open_scans(encoded: bytes, header: _Header) -> Image.Image:
    """A picture of several scans, or an arithmetic-coded or lossless one.

    A last scan that refines earlier ones adds only one bit: if an end marker follows, it counts as complete. All others
    are decoded twice, with different bytes after the data. If the pixels differ, blocks are missing.
    """
    scans, end, ended = _read_scans(encoded, header.scan, header.frame.pixels)
    _check_all_scans(header.frame, scans)
    picture = b"".join([*header.kept, memoryview(encoded)[header.scan : end]])
    image = _open_at_once(picture + _END, header.stated)
    last = picture.rindex(b"\xff\xda")  # entropy-coded data cannot hold it
    start = last + _start_of_filling(picture[last:])
    refines = scans[-1].high > 0 and header.frame.marker not in _ARITHMETIC
    if ended and refines and start == len(picture):
        return image
    read = partial(_read_if_complete, picture, start, image)
    return LateImage("JPEG", image.mode, image.size, read, header.stated)


def _open_at_once(picture: bytes, stated: Statements = SILENT) -> Image.Image:
    """Pillow reads the data in one piece: arithmetic coding requires it, and the others are faster."""
    image = open_with_pillow(picture, "JPEG", stated)
    assert isinstance(image, ImageFile.ImageFile)
    image.decodermaxblock = len(picture)
    return image


def _read_scans(encoded: bytes, place: int, pixels: int) -> tuple[list[_Scan], int, bool]:
    """All scans, the offset where the data of the last one end, and whether an end marker follows them, perhaps after
    comments. `place`: the first SOS marker."""
    scans: list[_Scan] = []
    end, marker = len(encoded), _SOS
    while marker == _SOS or marker in _BETWEEN_SCANS:
        if marker == _SOS:
            scan, data = _read_scan(encoded, place)
            scans.append(scan)
            check_scans(len(scans), pixels)
        else:
            data = place + 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
        found = _MARKER_BEHIND_DATA.search(encoded, data)
        place = found.start() if found else len(encoded)
        end = place if marker == _SOS else end
        marker = encoded[place + 1] if found else 0
    return scans, len(encoded[:end].rstrip(b"\xff")), marker == _EOI


def _check_all_scans(frame: _Frame, scans: list[_Scan]) -> None:
    """Raises ImageError if a component lacks a coefficient or, in a progressive picture, a coefficient's last bit."""
    missing = {(component, coefficient) for component in frame.components for coefficient in range(64)}
    for scan in scans:
        progressive = frame.marker in _PROGRESSIVE
        span = range(scan.first, scan.last + 1) if progressive else range(64)
        if scan.low == 0 or not progressive:
            missing -= {(component, coefficient) for component in scan.components for coefficient in span}
    if missing:
        raise damaged("JPEG")


def _read_if_complete(picture: bytes, start: int, image: Image.Image) -> Image.Image:
    """`start` of the filling. Single-colour blocks look like filler, but none of it is left over."""
    whole = _is_complete(picture, image)
    if whole and start < len(picture):
        whole = _is_complete(picture[: start + _SLACK]) or not _is_complete(picture[:-_SLACK])
    if not whole:
        raise damaged("JPEG")
    return image


def _is_complete(picture: bytes, image: Image.Image | None = None) -> bool:
    image, filled = image or _open_at_once(picture + _END), _open_at_once(picture + _FILLING + _END)
    pairs = zip(bands(image), bands(filled), strict=True)
    return all(one.tobytes() == other.tobytes() for (_, one), (_, other) in pairs)
