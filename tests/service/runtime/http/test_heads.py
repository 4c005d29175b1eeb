from __future__ import annotations

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.runtime.http.heads import CHUNKED, MOST_HEAD_BYTES, Head, Malformed, TooLarge, take_head

GET = b"GET /livez HTTP/1.1\r\nHost: a\r\n"


def head_of(content: bytes) -> Head:
    head = take_head(bytearray(content))
    assert head is not None
    return head


def test_a_head_is_taken_and_the_rest_stays() -> None:
    buffer = bytearray(b"\r\n\nPOST /a?b=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET")
    head = take_head(buffer)
    assert head == Head("POST", b"/a?b=1", "1.1", [(b"host", b"a"), (b"content-length", b"3")], length=3)
    assert buffer == b"abcGET"


@pytest.mark.parametrize("size", range(len(GET + b"\r\n")))
def test_it_is_not_taken_before_it_is_whole(size: int) -> None:
    buffer = bytearray((GET + b"\r\n")[:size])
    assert take_head(buffer) is None
    assert buffer == (GET + b"\r\n")[:size]


@pytest.mark.parametrize(
    ("lines", "header"),
    [
        (b"x: one\r\n two\r\n\tthree\r\n", b"one two three"),
        (b"x:  \t one \t\r\n", b"one"),
        (b"x:\r\n", b""),
        (b"x: \xe2\x82\xac\r\n", b"\xe2\x82\xac"),
        (b"x: one\n", b"one"),
    ],
)
def test_folded_headers_are_unfolded_and_spaces_around_a_value_dropped(lines: bytes, header: bytes) -> None:
    assert dict(head_of(GET + lines + b"\r\n").headers)[b"x"] == header


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://a:80/b?c", b"/b?c"),
        (b"HTTPS://u@a/b", b"/b"),
        (b"http://a?c=http://d/", b"/?c=http://d/"),
        (b"*", b"*"),
    ],
)
def test_a_target_may_be_a_whole_url(target: bytes, path: bytes) -> None:
    assert head_of(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n").target == path


@pytest.mark.parametrize(
    ("headers", "length", "close"),
    [
        (b"", 0, False),
        (b"Content-Length: 5\r\n", 5, False),
        (b"Content-Length: 5\r\ncontent-length: 5\r\n", 5, False),
        (b"Content-Length: 5, 5\r\n", 5, False),
        (b"Transfer-Encoding: Chunked\r\n", CHUNKED, False),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", CHUNKED, True),
        (b"Connection: keep-alive, Close\r\n", 0, True),
    ],
)
def test_where_a_body_ends(headers: bytes, length: int, close: bool) -> None:
    head = head_of(GET + headers + b"\r\n")
    assert (head.length, head.close) == (length, close)


def test_http_1_0_closes_and_needs_no_host() -> None:
    head = head_of(b"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n")
    assert (head.version, head.close, head.expects_continue) == ("1.0", True, False)


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        GET + b"Host: b\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET /\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n x: y\r\nHost: a\r\n\r\n",
        GET + b"x y: z\r\n\r\n",
        GET + b"x : z\r\n\r\n",
        GET + b": z\r\n\r\n",
        GET + b"x: a\x00b\r\n\r\n",
        GET + b"x: a\rb\r\n\r\n",
        GET + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        GET + b"Content-Length: +5\r\n\r\n",
        GET + b"Content-Length: 5,\r\n\r\n",
        GET + b"Content-Length:\r\n\r\n",
        GET + b"Content-Length: " + b"9" * 21 + b"\r\n\r\n",
        GET + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        GET + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        GET + b"Transfer-Encoding: identity\r\n\r\n",
        b"\x16\x03\x01",
    ],
    ids=lambda content: repr(content[:60]),
)
def test_anything_else_is_malformed(content: bytes) -> None:
    with pytest.raises(Malformed):
        take_head(bytearray(content))


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_head_has_a_limit_whole_or_not(end: bytes) -> None:
    with pytest.raises(TooLarge):
        take_head(bytearray(GET + b"x: " + b"y" * MOST_HEAD_BYTES + end))


# h11 as the judge

PIECES = st.sampled_from(
    [
        *(b"GET", b"POST", b"/", b"/classify?a=b", b"*", b"http://a/", b" HTTP/1.1", b" HTTP/1.0", b"HTTP/1.2", b" "),
        *(
            b"Host: a",
            b"host:b",
            b"Content-Length: 5",
            b"content-length:5 , 5",
            b"Content-Length: 0x5",
            b"x",
            b":",
            b"\t",
        ),
        *(b"Transfer-Encoding: chunked", b"transfer-encoding: CHUNKED", b"Connection: close", b"Expect: 100-continue"),
        *(b"\r\n", b"\n", b"\r", b"\r\n ", b"\x00", b"\x0b", b"\xff", b'"', b",", b"x: y"),
    ]
)
MESSAGES = st.builds(
    lambda start, lines: start + b"".join(lines) + b"\r\n\r\n",
    st.sampled_from([b"", b"GET / HTTP/1.1\r\nHost: a\r\n", b"POST /a HTTP/1.1\r\nHost: a\r\n"]),
    st.lists(st.one_of(PIECES, PIECES.map(lambda piece: piece + b"\r\n"), st.binary(max_size=3)), max_size=8),
)


def judged(content: bytes) -> tuple[str, bytes, list[tuple[bytes, bytes]]] | None:
    """What h11 takes this for; None if it refuses."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(content.lstrip(b"\r\n"))
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Request):
        return None
    return event.method.decode(), event.target, [(name.lower(), value) for name, value in event.headers]


@settings(max_examples=1000, deadline=None)
@given(MESSAGES)
@example(b"GET / HTTP/1.1\nHost: a\n\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nx: \r\n y\r\n\r\n")
def test_h11_takes_the_same_for_a_request(content: bytes) -> None:
    try:
        head = take_head(bytearray(content))
    except Malformed:
        head = None
    expected = judged(content)
    assert (head is None) == (expected is None)
    if head is not None and expected is not None:
        method, target, headers = expected
        assert head.method == method
        assert head.target == target or not target.startswith(b"/")
        framing = (b"content-length", b"transfer-encoding")  # h11 makes one of several
        found, wanted = (
            [(name, value.split()) for name, value in pairs if name not in framing] for pairs in (head.headers, headers)
        )
        assert found == wanted
        lengths = {value for name, value in headers if name == b"content-length"}
        coded = any(name == b"transfer-encoding" for name, _ in headers)
        assert head.length == (CHUNKED if coded else int(min(lengths, default=b"0")))
