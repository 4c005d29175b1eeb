"""Image orientation from EXIF or XMP. Besides the colour profile, it is the only metadata that changes the picture.

Pillow's EXIF reader fails as a whole. This one reads directory entries until it finds the orientation, so damage
elsewhere does not matter.
"""

from __future__ import annotations

import re
import struct

UPRIGHT = 1
_ORIENTATION = 0x0112
_ORDERS = {b"II": "<", b"MM": ">"}
# TIFF 6.0: BYTE, SHORT, LONG and their signed forms. The standard requires SHORT; some cameras write others.
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
_PREFIX = re.compile(rb"(Exif\0[\0\xff])*")
_XMP = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\s*["'<]""")


def orientation(*exifs: bytes, xmp: bytes = b"") -> int:
    """1 to 8 (EXIF 2.32), from the first EXIF block that gives one, otherwise from XMP; UPRIGHT if none can be read."""
    for exif in exifs:
        if stated := _of_exif(exif):
            return stated
    found = _XMP.search(xmp.replace(b"\0", b""))  # in UTF-16 and UTF-32 too
    return int(found[1]) if found else UPRIGHT


def _of_exif(exif: bytes) -> int | None:
    """None unless it gives one of 1 to 8."""
    try:
        stated = _read_directory(exif)
    except struct.error:
        return None
    return stated if stated is not None and 1 <= stated <= 8 else None


def _read_directory(exif: bytes) -> int | None:
    """Raises struct.error if the directory is cut short."""
    prefix = _PREFIX.match(exif)
    start = prefix.end() if prefix else 0
    order = _ORDERS.get(exif[start : start + 2])
    if order is None:
        return None
    (directory,) = struct.unpack_from(order + "I", exif, start + 4)
    (count,) = struct.unpack_from(order + "H", exif, start + directory)
    for place in range(start + directory + 2, start + directory + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", exif, place)
        if tag == _ORIENTATION and values == 1 and kind in _INTEGERS:
            return int(struct.unpack_from(order + _INTEGERS[kind], exif, place + 8)[0])
    return None
