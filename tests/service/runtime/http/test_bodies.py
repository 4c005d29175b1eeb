from __future__ import annotations

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
    content = b'3 ; a = "b"\r\nabc\r\n2 \t\r\nde\r\n000\r\nX-Checksum: 1\r\n\r\nGET'
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


PIECES = st.sampled_from([b"3", b"0", b"A", b";x", b" ", b"\r\n", b"\n", b"abc", b"0123456789", b"x: y", b"\xff"])


def judged(content: bytes) -> tuple[bytes, bool] | None:
    """The body that h11 finds, and whether it is over; None if it refuses."""
    judge = h11.Connection(h11.SERVER)
    judge.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + content)
    found, ended = b"", False
    try:
        while not ended and (event := judge.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            found += bytes(event.data) if isinstance(event, h11.Data) else b""
            ended = isinstance(event, h11.EndOfMessage)
    except h11.RemoteProtocolError:
        return None
    return found, ended


@settings(max_examples=1000, deadline=None)
@given(
    st.booleans(),
    st.lists(PIECES, max_size=12).map(b"".join).filter(lambda content: b"\n " not in content and b" ;" not in content),
)
def test_h11_finds_the_same_body(has_trailer: bool, content: bytes) -> None:
    """But for folded trailers, which are malformed here, and spaces before an extension, which h11 rejects."""
    content = b"0\r\n" * has_trailer + content + b"\r\n" * 8  # h11 judges a trailer when it is whole
    body = Chunked()
    try:
        found = taken(body, content)[0], body.ended
    except Malformed:
        found = None
    assert found == judged(content)
