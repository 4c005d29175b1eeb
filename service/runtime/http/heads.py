"""The head of a request, as RFC 9112 defines it and as clients write it.

1. bare line feeds end lines too, folded headers are unfolded, and any token is a method;
2. a target may be a whole URL (RFC 9112, 3.2.2);
3. lengths that are given more than once must agree, and one beside Transfer-Encoding makes the request the last one of
   its connection (RFC 9112, 6.3);
4. anything else raises Malformed: no two readers of the same bytes may disagree about where a request ends.

h11 decides the same way; the tests compare the two. It takes 45 microseconds for a request and its answer; this takes
11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Longest head. Larger ones are answered 431.
MOST_HEAD_BYTES = 32 << 10
CHUNKED = -1

_END = re.compile(rb"\n\r?\n")
_TOKEN = rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+"
_LINE = re.compile(rb"(%s) ([\x21-\x7e]+) HTTP/(1\.[0-9])\r?\n" % _TOKEN)
HEADER = re.compile(rb"(%s):([^\x00\n\r\f\v]*)\r?\n" % _TOKEN)
_FOLD = re.compile(rb"[ \t]*\r?\n[ \t]+")
_SCHEME_AND_HOST = re.compile(rb"^https?://[^/?#]*/?", re.IGNORECASE)
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"host", b"expect"})
_LENGTH = re.compile(rb"[0-9]{1,20}")


class Malformed(Exception):
    """This is not HTTP/1.1."""


class TooLarge(Exception):
    """The head has more than MOST_HEAD_BYTES."""


@dataclass(slots=True)
class Head:
    """`headers` by lower-case name. `length`: of the body, CHUNKED if its chunks tell."""

    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    length: int = 0
    close: bool = False
    expects_continue: bool = False


def take_head(buffer: bytearray) -> Head | None:
    """Takes a head from the front of `buffer`; None while it is incomplete. Raises Malformed and TooLarge."""
    _skip_empty_lines(buffer)
    found = _END.search(buffer)
    if (found.end() if found else len(buffer)) > MOST_HEAD_BYTES:
        raise TooLarge
    if found is None:
        if buffer and (buffer[0] < 0x21 or buffer[0] > 0x7E):
            raise Malformed  # such as the first byte of TLS: no need to wait for more
        return None
    lines = bytes(buffer[: found.end()])
    del buffer[: found.end()]
    return read_head(lines)


def _skip_empty_lines(buffer: bytearray) -> None:
    """Some clients send a stray line break after the body of a POST (RFC 9112, 2.2)."""
    if buffer[:1] and buffer[0] in b"\r\n":
        kept = buffer.lstrip(b"\r\n")
        del buffer[: len(buffer) - len(kept)]


def read_head(lines: bytes) -> Head:
    """`lines` end with an empty one."""
    line = _LINE.match(lines)
    if line is None:
        raise Malformed
    method, target, version = line[1].decode("ascii"), line[2], line[3].decode("ascii")
    headers = read_headers(lines, line.end())
    head = Head(method, target if target[0] == 0x2F else _SCHEME_AND_HOST.sub(b"/", target), version, headers)
    _read_framing(head)
    return head


def read_headers(lines: bytes, start: int) -> list[tuple[bytes, bytes]]:
    """From `start` to the empty line at the end. Raises Malformed."""
    if b"\n " in lines or b"\n\t" in lines:
        if lines[start : start + 1] in (b" ", b"\t"):
            raise Malformed  # it continues nothing
        lines, start = _FOLD.sub(b" ", lines[start:]), 0
    headers, end = [], len(lines) - (2 if lines.endswith(b"\r\n") else 1)
    while start < end:
        found = HEADER.match(lines, start)
        if found is None:
            raise Malformed
        headers.append((found[1].lower(), found[2].strip(b" \t")))
        start = found.end()
    return headers


def _read_framing(head: Head) -> None:
    hosts, lengths, codings = 0, set[bytes](), list[bytes]()
    head.close = head.version == "1.0"
    for name, value in head.headers:
        if name not in _FRAMING:
            continue
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths.update(length.strip(b" \t") for length in value.split(b","))
        elif name == b"transfer-encoding":
            codings.append(value.lower())
        elif name == b"connection":
            head.close = head.close or b"close" in [token.strip(b" \t") for token in value.lower().split(b",")]
        else:
            head.expects_continue = head.version != "1.0" and value.lower() == b"100-continue"
    if hosts > 1 or (hosts == 0 and head.version != "1.0") or len(lengths) > 1 or codings not in ([], [b"chunked"]):
        raise Malformed
    for length in lengths:
        if not _LENGTH.fullmatch(length):
            raise Malformed
        head.length = int(length)
    if codings:
        head.length = CHUNKED
        head.close = head.close or bool(lengths)
