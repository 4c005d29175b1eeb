"""Writes TIFF directories."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

SHORT, LONG = 3, 4


class Field(NamedTuple):
    """A tag's type, number of values, and encoded values."""

    kind: int
    values: int
    content: bytes


def shorts(order: str, *values: int) -> Field:
    return Field(SHORT, len(values), struct.pack(f"{order}{len(values)}H", *(value & 0xFFFF for value in values)))


def longs(order: str, *values: int) -> Field:
    return Field(LONG, len(values), struct.pack(f"{order}{len(values)}I", *(value & 0xFFFFFFFF for value in values)))


def under_directory(order: str, content: bytes | memoryview, tags: Mapping[int, Field]) -> bytes:
    """A TIFF with one directory, which follows the content. The content starts at byte 8."""
    padding = b"\0" * (len(content) % 2)
    directory = 8 + len(content) + len(padding)
    values_at = directory + 2 + 12 * len(tags) + 4
    rows: list[bytes] = []
    values = bytearray()
    for tag, field in sorted(tags.items()):
        row = struct.pack(order + "HHI", tag, field.kind, field.values)
        if len(field.content) <= 4:
            rows.append(row + field.content.ljust(4, b"\0"))
        else:
            rows.append(row + struct.pack(order + "I", values_at + len(values)))
            values += field.content + b"\0" * (len(field.content) % 2)
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, directory)
    return b"".join([start, content, padding, struct.pack(order + "H", len(tags)), *rows, bytes(4), values])
