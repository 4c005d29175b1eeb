"""GIF: keeps the first frame and drops extensions that do not affect its pixels.

1. comments, application extensions and unknown extensions are ignored, however malformed, except a colour profile;
2. everything after the first frame may be missing or malformed, including the trailer.

The canvas outside the frame is transparent: `models.preprocess` shows it as white.
"""

from __future__ import annotations

from PIL import Image

from models.formats.bounds import check_reads
from models.formats.opening import MAX_PROFILE_BYTES, HeaderError, Statements, open_with_pillow

_HEADER_BYTES = 13
_EXTENSION, _IMAGE, _TRAILER, _GRAPHIC_CONTROL, _APPLICATION = 0x21, 0x2C, 0x3B, 0xF9, 0xFF
# ICC.1:2022, annex B.6: the first block of the application's extension; the profile is in the others.
_PROFILE = b"\x0bICCRGBG1012"
_GRAPHIC_CONTROL_BYTES = 4
# Pillow reads twice per block.
_READS_A_BLOCK = 2


def open_gif(encoded: bytes, max_pixels: int) -> Image.Image:
    """May raise anything."""
    place = _HEADER_BYTES + _palette_bytes(encoded[10])
    kept, control, profile, reads = encoded[:place], b"", b"", 0
    while encoded[place] != _IMAGE:
        if encoded[place] == _TRAILER:
            raise HeaderError
        extension = encoded[place] == _EXTENSION
        place += 2 if extension else 1
        if not extension:
            check_reads(reads := reads + _READS_A_BLOCK, encoded)
            continue
        start, place, blocks = _skip_blocks(encoded, place)
        check_reads(reads := reads + _READS_A_BLOCK * blocks, encoded)
        if encoded[start - 1] == _GRAPHIC_CONTROL and encoded[start] >= _GRAPHIC_CONTROL_BYTES:
            control = b"\x21\xf9\4" + encoded[start + 1 : start + 5] + b"\0"
        elif encoded[start - 1] == _APPLICATION and encoded.startswith(_PROFILE, start):
            profile = profile or _joined(encoded, start + len(_PROFILE))
    stated = Statements(profile=profile if len(profile) <= MAX_PROFILE_BYTES else None)
    return open_with_pillow(b"".join([kept, control, memoryview(encoded)[place:]]), "GIF", stated)


def _palette_bytes(flags: int) -> int:
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0


def _skip_blocks(encoded: bytes, place: int) -> tuple[int, int, int]:
    """(offset of the first block, offset after the last one, number of blocks)"""
    start, blocks = place, 1
    while length := encoded[place]:
        place += 1 + length
        blocks += 1
    return start, place + 1, blocks


def _joined(encoded: bytes, place: int) -> bytes:
    """The content of all blocks from there on."""
    blocks = []
    while length := encoded[place]:
        blocks.append(encoded[place + 1 : place + 1 + length])
        place += 1 + length
    return b"".join(blocks)
