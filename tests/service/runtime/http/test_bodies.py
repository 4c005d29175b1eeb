from __future__ import annotations

from contextlib import suppress

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.runtime.http.bodies import MOST_CHUNKS_AT_ONCE, MOST_LINE_BYTES, Chunked, Sized, body_of
from service.runtime.http.heads import CHUNKED, Malformed


def taken(body: Chunked | Sized, content: bytes, size: int = 1 << 20) -> tuple[bytes, bytes]:
    """Fed in pieces of `size` -> the body, and what follows it."""
    buffer, found = bytearray(), b""
    for start in range(0, len(content), size):
        buffer += content[start : start + size]
        before = -1
        while not body.ended and len(buffer) != before:
            before = len(buffer)
            found += body.take(buffer)
    return found, bytes(buffer)


def test_a_body_of_a_known_length_ends_there() -> None:
    body = Sized(3)
    buffer = bytearray(b"ab")
    assert (body.take(buffer), body.ended, buffer) == (b"ab", False, b"")
    buffer += b"cGET"
    assert (body.take(buffer), body.ended, buffer) == (b"c", True, b"GET")


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_chunks_may_have_extensions_and_trailers_and_come_in_any_pieces(size: int) -> None:
    body = Chunked()
    content = b'3;a="b"\r\nabc\r\n2 \r\nde\r\n000\r\nX-Checksum: 1\r\n\r\nGET'
    assert taken(body, content, size) == (b"abcde", b"GET")
    assert body.ended


@pytest.mark.parametrize(
    "content",
    [
        *(b"x\r\n", b"\r\n", b"-1\r\n", b"0x5\r\n", b"f" * 21 + b"\r\n", b"1\r\nab\r\n", b"1\r\na\n", b"1\n"),
        *(b"0\r\nno header\r\n\r\n", b"1;" + b"x" * MOST_LINE_BYTES, b"0\r\n" + b"x: y\r\n" * 20_000),
    ],
    ids=lambda content: repr(content[:20]),
)
def test_broken_chunks_are_malformed(content: bytes) -> None:
    if content == b"1\n":
        content += b"x" * MOST_LINE_BYTES
    with pytest.raises(Malformed):
        taken(Chunked(), content)


def test_one_turn_takes_a_bounded_number_of_chunks() -> None:
    body, buffer = Chunked(), bytearray(b"1\r\na\r\n" * (3 * MOST_CHUNKS_AT_ONCE) + b"0\r\n\r\n")
    pieces = [body.take(buffer) for _ in range(4)]
    assert [len(piece) for piece in pieces] == [MOST_CHUNKS_AT_ONCE] * 3 + [0]
    assert body.ended


def test_an_empty_body_is_none() -> None:
    assert body_of(0) is None
    assert isinstance(body_of(CHUNKED), Chunked)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"3", b"0", b"A", b";x", b" ", b"\r\n", b"\n", b"abc", b"0123456789", b"x: y", b"\xff"]),
        max_size=12,
    )
)
def test_h11_finds_the_same_body(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    judge = h11.Connection(h11.SERVER)
    judge.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + content)
    assert isinstance(judge.next_event(), h11.Request)
    expected, ended = b"", False
    try:
        while (event := judge.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Data):
                expected += event.data
            ended = ended or isinstance(event, h11.EndOfMessage)
    except h11.RemoteProtocolError:
        if not ended:
            with pytest.raises(Malformed):
                taken(Chunked(), content + b"\r\n" * MOST_LINE_BYTES)
            return
    body = Chunked()
    if b"\n " in content:  # a folded trailer, which nobody sends
        with suppress(Malformed):
            taken(body, content)
        return
    found, _ = taken(body, content)
    assert (found, body.ended) == (expected, ended)
