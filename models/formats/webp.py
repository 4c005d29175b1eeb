"""WebP: keeps the chunks that determine the pixels, under a correct RIFF size.

The stated RIFF size, bytes after the picture and metadata chunks are ignored. (Google, "WebP Container
Specification".)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from PIL import Image

from models.formats import exif
from models.formats.bounds import check_reads
from models.formats.opening import MAX_PROFILE_BYTES, Statements, open_with_pillow

_HEADER_BYTES = 12
_PIXELS = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"})
# VP8X flags; without those for ICC, EXIF and XMP.
_ANIMATION, _ALPHA = 0x02, 0x10
_FLAGS = _ANIMATION | _ALPHA


def open_webp(encoded: bytes, max_pixels: int) -> Image.Image:
    """May raise anything."""
    kept: list[bytes | memoryview] = []
    stated: dict[bytes, bytes] = {}
    for kind, content in _chunks(encoded):
        if kind == b"VP8X":
            flags = content[0] & _FLAGS
            # The canvas outside the first frame is transparent, whatever the frames are.
            content = memoryview(bytes([flags | _ALPHA if flags & _ANIMATION else flags]) + bytes(content[1:]))
        if kind in _PIXELS:
            kept += [kind, struct.pack("<I", len(content)), content, b"\0" * (len(content) % 2)]
        else:
            stated.setdefault(kind, bytes(content))
    header = struct.pack("<4sI4s", b"RIFF", 4 + sum(map(len, kept)), b"WEBP")
    profile = stated.get(b"ICCP", b"")
    orientation = exif.orientation(stated.get(b"EXIF", b""), xmp=stated.get(b"XMP ", b""))
    facts = Statements(orientation, profile if len(profile) <= MAX_PROFILE_BYTES else None)
    return open_with_pillow(b"".join([header, *kept]), "WEBP", facts)


def _chunks(encoded: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Stops at a second picture or at an invalid chunk. The last chunk may be cut short."""
    view, place, reads, pictures = memoryview(encoded), _HEADER_BYTES, 0, 0
    while place + 8 <= len(encoded):
        kind, length = struct.unpack_from("<4sI", encoded, place)
        pictures += kind in (b"VP8 ", b"VP8L")
        if pictures > 1 or not kind.strip().isalnum():
            return
        check_reads(reads := reads + 1, encoded)
        yield kind, view[place + 8 : place + 8 + length]
        place += 8 + length + length % 2
