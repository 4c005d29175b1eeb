"""JPEG: the segments that decide about pixels, and whether all blocks of the picture are there.

1. application segments and comments decide nothing, however odd or broken they are;
2. a picture is complete if its blocks are: the end marker may be missing, and it proves nothing;
3. kinds of JPEG that libjpeg-turbo does not decode as Pillow calls it are named.

ITU-T T.81, annex B for the markers, annex G for progressive scans.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

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
# Markers inside and behind entropy-coded data; a zero stands for a byte 0xff, RST0 to RST7 belong to the data.
_MARKER_BEHIND_DATA = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
# Pillow reads four times a segment.
_READS_A_SEGMENT = 4
_SOS, _EOI, _APP0, _APP1, _APP2, _APP14 = 0xDA, 0xD9, 0xE0, 0xE1, 0xE2, 0xEE
# Baseline and extended Huffman-coded pictures of one scan; Huffman-coded or arithmetic-coded pictures of many.
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1}), frozenset({0xC2, 0xCA})
_ARITHMETIC = frozenset({0xC9, 0xCA})
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})  # DHT, DAC, DQT, DRI
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
# libjpeg looks at no shorter ones of these.
_JFIF, _ADOBE = (b"JFIF\0", 14), (b"Adobe", 12)
_UNSUPPORTED = {
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE, 0xDF), "a hierarchical JPEG"),
    0xCB: "an arithmetic-coded lossless JPEG",
    0xF7: "a JPEG-LS picture",
}
# Entropy-coded bytes of ones only, which no Huffman code begins with. libjpeg asks for up to 8 bytes ahead of what it
# decodes: where all blocks are there it does not use these, where some are missing they are soon used up, and without
# an end marker it then waits for more, which Pillow calls truncated.
_AHEAD = b"\xff\0" * 8
# What a decoder that lacks blocks takes for some, so that they differ from the zeros behind an end marker.
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
    """`kept`: the segments before the image data that decide about it; `scan`: where its first SOS marker is."""

    kept: list[bytes]
    frame: _Frame
    scan: int
    stated: Statements


def open_jpeg(encoded: bytes, max_pixels: int) -> Image.Image:
    """May raise anything, ImageError for what is not supported."""
    header = _read_header(encoded)
    scan, data = _read_scan(encoded, header.scan)
    if header.frame.marker in _SEQUENTIAL and len(scan.components) == len(header.frame.components):
        blocks = memoryview(encoded)[header.scan : _end_of_blocks(encoded, data)]
        return _open_at_once(b"".join([*header.kept, blocks, _AHEAD]), header.stated)
    return _open_scans(encoded, header)


def _end_of_blocks(encoded: bytes, data: int) -> int:
    """Where the end marker is, or would be. Looking for it from the front takes a twentieth of the decoder's time."""
    if encoded.endswith(_END):
        return len(encoded) - len(_END)
    end = encoded.find(_END, data)
    return end if end >= 0 else len(encoded.rstrip(b"\xff"))


def _segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start and end of its content), up to and with the first SOS. Bytes between segments are passed over."""
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
    return Statements(exif.orientation(b"".join(exifs), xmp), _profile(profiles))


def _is_for_libjpeg(marker: int, content: bytes) -> bool:
    """It takes the colour space from these two."""
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
    """ICC.1:2022, annex B.4: each piece begins with its number, from 1, and how many there are."""
    numbered = {piece[0]: piece[2:] for piece in pieces if len(piece) > 2 and piece[1] == len(pieces)}
    whole = sorted(numbered) == list(range(1, len(pieces) + 1))
    profile = b"".join(numbered[number] for number in sorted(numbered)) if whole else b""
    return profile if 0 < len(profile) <= MAX_PROFILE_BYTES else None


def _read_scan(encoded: bytes, place: int) -> tuple[_Scan, int]:
    """The SOS segment whose marker is at `place`, and where its data begins."""
    length, count = struct.unpack_from(">HB", encoded, place + 2)
    components = tuple(encoded[place + 5 : place + 5 + 2 * count : 2])
    first, last, bits = struct.unpack_from(">BBB", encoded, place + 5 + 2 * count)
    return _Scan(components, first, last, bits >> 4, bits & 15), place + 2 + length


def _open_scans(encoded: bytes, header: _Header) -> Image.Image:
    """A picture of several scans, which libjpeg decodes all before it shows any; arithmetic-coded or lossless ones too.

    A last scan that refines others only adds a last bit; where it is followed by an end marker it is taken for whole.
    Any other is decoded a second time with other bytes behind it: that must make no difference.
    """
    scans, end, ended = _read_scans(encoded, header.scan)
    _check_all_scans(header.frame, scans)
    picture = b"".join([*header.kept, memoryview(encoded)[header.scan : end]])
    image = _open_at_once(picture + _END, header.stated)
    if ended and scans[-1].high > 0 and header.frame.marker not in _ARITHMETIC:
        return image
    return LateImage("JPEG", image.mode, image.size, partial(_read_if_complete, picture, image), header.stated)


def _open_at_once(picture: bytes, stated: Statements = SILENT) -> Image.Image:
    """To be read in one piece: arithmetic coding needs it, and all others gain by it."""
    image = open_with_pillow(picture, "JPEG", stated)
    assert isinstance(image, ImageFile.ImageFile)
    image.decodermaxblock = len(picture)
    return image


def _read_scans(encoded: bytes, place: int) -> tuple[list[_Scan], int, bool]:
    """All scans from the first one's marker on, where their data ends, and whether a marker of the end is there."""
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
            return scans, len(encoded.rstrip(b"\xff")), False
        place = found.start()


def _check_all_scans(frame: _Frame, scans: list[_Scan]) -> None:
    """Raises ImageError unless each coefficient of each component comes, in a progressive picture to its last bit."""
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
