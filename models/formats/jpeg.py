"""JPEG: keeps the segments that determine the pixels, and checks that no block is missing.

1. application segments and comments are ignored, however malformed;
2. a picture is complete if all its blocks are there: the end marker may be missing, and its presence proves nothing;
3. kinds of JPEG that Pillow's libjpeg-turbo cannot decode are named.

ITU-T T.81, annex B for the markers, annex G for progressive scans.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from models.bounds import allowed_reads, check_scans, too_many_pieces
from models.formats import exif
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
)

_START, _END = b"\xff\xd8", b"\xff\xd9"
_MARKER = re.compile(rb"\xff([\x01-\xfe])")
# A marker that ends entropy-coded data. Within the data, 0xff is followed by a zero or belongs to RST0 to RST7.
_MARKER_BEHIND_DATA = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
# Pillow reads four times per segment.
_READS_A_SEGMENT = 4
_SOS, _EOI, _APP0, _APP1, _APP2, _APP14 = 0xDA, 0xD9, 0xE0, 0xE1, 0xE2, 0xEE
# SOF0 and SOF1, both Huffman-coded; SOF2 and SOF10, Huffman-coded and arithmetic-coded.
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1}), frozenset({0xC2, 0xCA})
_ARITHMETIC = frozenset({0xC9, 0xCA})
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})  # DHT, DAC, DQT, DRI
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
# Fewer zeros may be blocks of one colour.
_UNWRITTEN_BYTES = 64
# A decoder that lacks blocks decodes these bytes instead, and not to the zeros that follow from an end marker.
_FILLING = bytes((151 * place + 183) % 0xFF for place in range(1024))


class _Frame(NamedTuple):
    """SOF: its marker and the identifiers of its components."""

    marker: int
    components: tuple[int, ...]


class _Scan(NamedTuple):
    """SOS: components, first and last coefficient, successive approximation's high and low bit."""

    components: tuple[int, ...]
    first: int
    last: int
    high: int
    low: int


class _Header(NamedTuple):
    """`kept`: the segments that determine the pixels, up to the first SOS; `scan`: offset of that SOS marker."""

    kept: list[bytes]
    frame: _Frame
    scan: int
    stated: Statements


def open_jpeg(encoded: bytes, max_pixels: int) -> Image.Image:
    """May raise anything; ImageError for unsupported formats."""
    header = _read_header(encoded)
    scan, data = _read_scan(encoded, header.scan)
    if header.frame.marker in _SEQUENTIAL and len(scan.components) == len(header.frame.components):
        blocks = memoryview(encoded)[header.scan : _end_of_blocks(encoded, data)]
        return _open_at_once(b"".join([*header.kept, blocks, _AHEAD]), header.stated)
    return _open_scans(encoded, header)


def _end_of_blocks(encoded: bytes, data: int) -> int:
    """Offset of the first end marker after `data`, or of the end."""
    places = [place for shift in (0, 1) if (place := _first_pair(encoded, data + shift)) is not None]
    return min(places) if places else _end_without_marker(encoded)


def _first_pair(encoded: bytes, start: int) -> int | None:
    """The first end marker an even number of bytes after `start`. bytes.find takes eight times as long, a twentieth of
    the decoding time."""
    pairs = np.frombuffer(encoded, "<u2", max(len(encoded) - start, 0) // 2, min(start, len(encoded)))
    found = pairs == int.from_bytes(_END, "little")
    return start + 2 * int(found.argmax()) if found.any() else None


def _end_without_marker(encoded: bytes) -> int:
    """Where the data of a file without an end marker ends. Zeros there are what an interrupted copy has not written."""
    written = encoded.rstrip(b"\0")
    return len((written if len(encoded) - len(written) >= _UNWRITTEN_BYTES else encoded).rstrip(b"\xff"))


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
        elif marker == _SOS and frame:
            return _Header(kept, frame, start - 4, _statements(exifs, xmp, profiles))
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
    bits, height, _, count = struct.unpack_from(">BHHB", content)
    components = tuple(content[6 : 6 + 3 * count : 3])
    if bits != 8:
        raise unsupported(f"a {bits}-bit JPEG")
    if height == 0:
        raise unsupported("a JPEG that states its height only behind its data")
    if count not in (1, 3, 4):
        raise unsupported(f"a JPEG of {count} components")
    return _Frame(marker, components)


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
    scans, end, ended = _read_scans(encoded, header.scan)
    _check_all_scans(header.frame, scans)
    picture = b"".join([*header.kept, memoryview(encoded)[header.scan : end]])
    image = _open_at_once(picture + _END, header.stated)
    if ended and scans[-1].high > 0 and header.frame.marker not in _ARITHMETIC:
        return image
    return LateImage("JPEG", image.mode, image.size, partial(_read_if_complete, picture, image), header.stated)


def _open_at_once(picture: bytes, stated: Statements = SILENT) -> Image.Image:
    """Pillow reads the data in one piece: arithmetic coding requires it, and the others are faster."""
    image = open_with_pillow(picture, "JPEG", stated)
    assert isinstance(image, ImageFile.ImageFile)
    image.decodermaxblock = len(picture)
    return image


def _read_scans(encoded: bytes, place: int) -> tuple[list[_Scan], int, bool]:
    """All scans, the offset where their data ends, and whether an end marker follows. `place`: the first SOS marker."""
    scans: list[_Scan] = []
    while True:
        marker = encoded[place + 1]
        if marker == _EOI:
            return scans, len(encoded[:place].rstrip(b"\xff")), True
        if marker == _SOS:
            scan, data = _read_scan(encoded, place)
            scans.append(scan)
            check_scans(len(scans))
        else:
            data = place + 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
        found = _MARKER_BEHIND_DATA.search(encoded, data)
        if found is None:
            return scans, _end_without_marker(encoded), False
        place = found.start()


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


def _read_if_complete(picture: bytes, image: Image.Image) -> Image.Image:
    filled = _open_at_once(picture + _FILLING + _END)
    for (_, one), (_, other) in zip(bands(image), bands(filled), strict=True):
        if one.tobytes() != other.tobytes():
            raise damaged("JPEG")
    return image
