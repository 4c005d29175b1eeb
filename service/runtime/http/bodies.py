"""The body of a request: of a known length, or in chunks (RFC 9112, 7.1)."""

from __future__ import annotations

import re

from service.runtime.http.heads import CHUNKED, HEADER, Malformed

# Longest line before a chunk or in the trailer, and longest trailer.
MOST_LINE_BYTES = 4096
MOST_TRAILER_BYTES = 32 << 10
# Chunks read in one turn of the event loop. A chunk takes 2 microseconds, and there may be one for every byte.
MOST_CHUNKS_AT_ONCE = 1000

_SIZE = re.compile(rb"([0-9a-fA-F]{1,20})[ \t]*(?:;[^\r\n]*)?")


class Sized:
    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = not length

    def take(self, buffer: bytearray) -> bytes:
        """The part of the body that has arrived, taken from the front of `buffer`."""
        if len(buffer) <= self._left:
            content = bytes(buffer)
            buffer.clear()
        else:
            content = bytes(buffer[: self._left])
            del buffer[: self._left]
        self._left -= len(content)
        self.ended = not self._left
        return content


class Chunked:
    def __init__(self) -> None:
        self.ended = False
        self._left = 0
        self._state = self._read_size
        self._trailer_bytes = 0

    def take(self, buffer: bytearray) -> bytes:
        """The body's bytes in the next MOST_CHUNKS_AT_ONCE chunks, as far as they have arrived. Raises Malformed."""
        self._pieces: list[bytes] = []
        steps = 0
        while steps < 3 * MOST_CHUNKS_AT_ONCE and not self.ended and self._state(buffer):
            steps += 1
        return b"".join(self._pieces)

    def _read_size(self, buffer: bytearray) -> bool:
        """Each of these is a state; it returns whether it could take what it needs."""
        line = _take_line(buffer)
        if line is None:
            return False
        # A bare line feed does not end such a line (RFC 9112, 2.2): a proxy might see another body.
        found = _SIZE.fullmatch(line, 0, len(line) - 1) if line.endswith(b"\r") else None
        if found is None:
            raise Malformed
        self._left = int(found[1], 16)
        self._state = self._read_content if self._left else self._read_trailer
        return True

    def _read_content(self, buffer: bytearray) -> bool:
        if not buffer:
            return False
        piece = bytes(buffer[: self._left])
        del buffer[: len(piece)]
        self._pieces.append(piece)
        self._left -= len(piece)
        if not self._left:
            self._state = self._read_end
        return True

    def _read_end(self, buffer: bytearray) -> bool:
        if not b"\r\n".startswith(buffer[:2]):
            raise Malformed
        if len(buffer) < len(b"\r\n"):
            return False
        del buffer[:2]
        self._state = self._read_size
        return True

    def _read_trailer(self, buffer: bytearray) -> bool:
        line = _take_line(buffer)
        if line is None:
            return False
        line = line.removesuffix(b"\r")
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MOST_TRAILER_BYTES or (line and not HEADER.fullmatch(line + b"\r\n")):
            raise Malformed
        self.ended = not line
        return True


def _take_line(buffer: bytearray) -> bytes | None:
    """Without its line feed."""
    end = buffer.find(b"\n", 0, MOST_LINE_BYTES + 2)
    if end < 0:
        if len(buffer) > MOST_LINE_BYTES:
            raise Malformed
        return None
    line = bytes(buffer[:end])
    del buffer[: end + 1]
    return line


Body = Sized | Chunked


def body_of(length: int) -> Body | None:
    """None if it is empty."""
    if length == CHUNKED:
        return Chunked()
    return Sized(length) if length else None
