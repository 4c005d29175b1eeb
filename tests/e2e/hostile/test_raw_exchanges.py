"""HTTP/1.1 as clients really write it, byte for byte, against the real server."""

from __future__ import annotations

import base64
import email
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Server

LIMIT_S = 60.0
CRLF = b"\r\n"
LIVE = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
JPEG = b"Content-Type: image/jpeg\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
JSON = b"Content-Type: application/json\r\n"


@dataclass
class Reply:
    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Conversation:
    """One connection: what is sent, as it is, and the replies."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, *pieces: bytes) -> None:
        self.connection.sendall(b"".join(pieces))

    def reply(self, *, head_only: bool = False) -> Reply:
        """The next one that is final."""
        status, headers = self._head()
        while status == 100:
            status, headers = self._head()
        return Reply(status, headers, b"" if head_only else self._take(int(headers["Content-Length"])))

    def _head(self) -> tuple[int, Message]:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._take(1)
        line, _, rest = head.decode("latin-1").partition("\r\n")
        return int(line.split()[1]), email.message_from_string(rest)

    def _take(self, size: int) -> bytes:
        content = b""
        while len(content) < size:  # with a timeout, MSG_WAITALL may return less
            piece = self.connection.recv(size - len(content))
            assert piece, f"the server closed after {len(content)} of {size} bytes, {content[-200:]!r}"
            content += piece
        return content

    def is_closed(self) -> bool:
        try:
            return self.connection.recv(1) == b""
        except ConnectionResetError:
            return True


@contextmanager
def talking(server: Server) -> Iterator[Conversation]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as connection:
        yield Conversation(connection)


@pytest.fixture
def talk(server: Server) -> Iterator[Conversation]:
    with talking(server) as conversation:
        yield conversation


def post(body: bytes, headers: bytes = JPEG, target: bytes = b"/classify?top_k=1") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST " + target + b" HTTP/1.1\r\nHost: a\r\n" + headers + length + CRLF + body


def chunked(body: bytes) -> bytes:
    return b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


def form(image: bytes, head: bytes) -> bytes:
    return b"--b\r\n" + head + b"\r\n" + image + b"\r\n--b--\r\n"


# One image, said in many ways


def bodies(jpeg: bytes) -> dict[str, tuple[bytes, bytes]]:
    """Name -> the headers and the body of a request with this image."""
    text = base64.b64encode(jpeg)
    lines = base64.encodebytes(jpeg).replace(b"\n", b"\\r\\n")
    url_safe = base64.urlsafe_b64encode(jpeg).rstrip(b"=")
    images = b'{"images": [{"b64": "%s"}]}'
    disposition = b"Content-Disposition: form-data; name=a"
    named = disposition + b"; filename=a.jpg\r\n"
    return {
        "raw": (JPEG, jpeg),
        "a type with parameters": (b'content-type:IMAGE/JPEG ; charset=binary; name="a;b"\r\n', jpeg),
        "x-image": (b"Content-Type: application/x-image\r\n", jpeg),
        "any image": (b"Content-Type: image/*\r\n", jpeg),
        "octets": (b"Content-Type: application/octet-stream\r\n", jpeg),
        "a folded header": (b"Content-Type:\r\n image/jpeg\r\n", jpeg),
        "filename": (FORM, form(jpeg, named)),
        "filename* alone": (FORM, form(jpeg, disposition + b"; filename*=UTF-8''%e2%82%ac.jpg\r\n")),
        "no filename, an image type": (FORM, form(jpeg, disposition + b"\r\nContent-Type: image/jpeg\r\n")),
        "no filename, octets": (FORM, form(jpeg, disposition + b"\r\ncontent-type: application/octet-stream\r\n")),
        "a text field beside it": (FORM, b"--b\r\n" + disposition + b"\r\n\r\nhi\r\n" + form(jpeg, named)),
        "preamble and epilogue": (FORM, b"Hello\r\n\r\n" + form(jpeg, named) + b"Bye\r\n--b\r\n"),
        "line feeds only": (FORM, b"--b\n" + named.replace(CRLF, b"\n") + b"\n" + jpeg + b"\n--b--\n"),
        "no line end at the end": (FORM, form(jpeg, named)[:-2]),
        "a quoted boundary": (FORM.replace(b"=b", b'="b"'), form(jpeg, named)),
        "a part's folded, odd head": (FORM, form(jpeg, b"CONTENT-DISPOSITION: form-data;\r\n\tfilename=a.jpg\r\n")),
        "a part in base64": (FORM, form(text, named + b"Content-Transfer-Encoding: base64\r\n")),
        "a binary part": (FORM, form(jpeg, named + b"Content-Transfer-Encoding: binary\r\n")),
        "JSON": (JSON, images % text),
        "JSON with a charset": (JSON.replace(b"json", b"json; charset=UTF-8"), images % text),
        "JSON with a byte order mark": (JSON, b"\xef\xbb\xbf" + images % text),
        "JSON in UTF-16": (JSON, (images % text).decode().encode("utf-16")),
        "a form with a byte order mark": (FORM, b"\xef\xbb\xbf" + form(jpeg, named)),
        "a filename in pieces": (FORM, form(jpeg, disposition + b"; filename*0=a; filename*1=.jpg\r\n")),
        "a filename in Latin-2": (FORM, form(jpeg, disposition + b"; filename*=iso-8859-2''ko%e8ka.jpg\r\n")),
        "text/json": (b"Content-Type: text/json\r\n", images % text),
        "vendor JSON": (b"Content-Type: application/vnd.api+json\r\n", images % text),
        "base64 in lines": (JSON, images % lines),
        "URL-safe base64 without padding": (JSON, images % url_safe),
        "a data URI": (JSON, images % (b"data:image/jpeg;charset=utf-8;base64," + text)),
        "a data URI with spaces": (JSON, images % (b"data:image/jpeg; base64, " + text)),
        "a percent-encoded data URI": (JSON, images % (b"data:;base64," + text.replace(b"+", b"%2B"))),
    }


@pytest.mark.parametrize("name", bodies(b""))
def test_one_image_has_one_answer_however_it_is_sent(talk: Conversation, jpeg_bytes: bytes, name: str) -> None:
    talk.send(post(jpeg_bytes))
    expected = talk.reply().json()["results"][0]["predictions"]
    headers, body = bodies(jpeg_bytes)[name]
    talk.send(post(body, headers))
    reply = talk.reply()
    assert reply.status == 200, reply.body
    (result,) = reply.json()["results"]
    assert result["predictions"] == expected


# Requests


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (LIVE, 200),
        (b"\r\n" + LIVE, 200),
        (b"\r\n\r\n\n" + LIVE, 200),
        (b"GET http://a/livez HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"GET HTTP://a:80/readyz?verbose HTTP/1.1\r\nHost: b\r\n\r\n", 200),
        (b"GET https://user@a/livez HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"GET http://a?x=http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"GET http://a/nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /livez HTTP/1.1\nHost: a\n\n", 200),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nhOST: a\r\nX-Folded: one\r\n two\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"BREW /livez HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET /%00%0a%1b[31m HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET  /livez HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ],
)
def test_a_request_as_clients_write_it(talk: Conversation, sent: bytes, status: int) -> None:
    talk.send(sent)
    reply = talk.reply()
    assert (reply.status, bool(reply.headers["X-Request-ID"])) == (status, True)


@pytest.mark.parametrize("between", [b"\r\n", b"\r\n\r\n", b"\n", b"\r\n" * 1000])
@pytest.mark.parametrize("at_once", [True, False])
def test_line_ends_after_a_body_belong_to_nothing(
    talk: Conversation, jpeg_bytes: bytes, between: bytes, at_once: bool
) -> None:
    for _ in range(3):
        if at_once:
            talk.send(post(jpeg_bytes), between, LIVE)
            assert talk.reply().status == 200
        else:
            talk.send(post(jpeg_bytes))
            assert talk.reply().status == 200
            for byte in between[:10]:
                talk.send(bytes([byte]))
            talk.send(LIVE)
        assert talk.reply().json() == {"status": "alive"}


def test_pipelined_requests_are_answered_in_order(talk: Conversation, jpeg_bytes: bytes) -> None:
    talk.send(post(jpeg_bytes), LIVE, post(b"junk"), b"\r\n", LIVE)
    assert [talk.reply().status for _ in range(4)] == [200, 200, 422, 200]


@pytest.mark.parametrize("name", ["Transfer-Encoding", "transfer-encoding"])
def test_two_lengths_close_the_connection_after_the_answer(talk: Conversation, jpeg_bytes: bytes, name: str) -> None:
    head = f"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{name}: chunked\r\n"
    talk.send(head.encode(), JPEG, CRLF, chunked(jpeg_bytes), LIVE)
    reply = talk.reply()
    assert (reply.status, reply.headers["Connection"]) == (200, "close")
    assert talk.is_closed()


@pytest.mark.parametrize("extension", [b"", b"  ", b";name=value", b" ; a = b\t; c", b';a="x;y"', b";"])
def test_a_chunked_body_has_extensions_and_trailers(talk: Conversation, jpeg_bytes: bytes, extension: bytes) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n" + JPEG + CRLF
    body = b"00%X%b\r\n" % (len(jpeg_bytes), extension) + jpeg_bytes
    body += b"\r\n0" + extension + b"\r\nX-Checksum: 1\r\n\r\n"
    talk.send(head, body, LIVE)
    assert [talk.reply().status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    "body",
    [
        b"4\r\nbody\n0\r\n\r\n",
        b"4\r\nbodyy\r\n0\r\n\r\n",
        b"4;a\nb\r\nbody\r\n0\r\n\r\n",
        b"4\nbody\r\n0\r\n\r\n",
        b" 4\r\nbody\r\n0\r\n\r\n",
        b"0x4\r\nbody\r\n0\r\n\r\n",
        b"-4\r\nbody\r\n0\r\n\r\n",
        b"4\r\r\nbody\r\n0\r\n\r\n",
        b"\r\n4\r\nbody\r\n0\r\n\r\n",
    ],
)
def test_a_chunk_that_two_servers_could_take_for_two_things_is_refused(talk: Conversation, body: bytes) -> None:
    talk.send(b"POST /classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + JPEG + CRLF, body, LIVE)
    reply = talk.reply()
    assert (reply.status, reply.json()["code"]) == (400, "malformed_request")
    assert reply.headers["Connection"] == "close"
    assert talk.is_closed()


@pytest.mark.parametrize(
    ("lengths", "status"),
    [
        ([b"%d", b"%d"], 200),
        ([b"%d, %d"], 200),
        ([b"%d", b"1"], 400),
        ([b"1, %d"], 400),
        ([b"+%d"], 400),
        ([b"0x%x"], 400),
    ],
)
def test_lengths_must_agree(talk: Conversation, jpeg_bytes: bytes, lengths: list[bytes], status: int) -> None:
    values = [length % ((len(jpeg_bytes),) * length.count(b"%")) for length in lengths]
    headers = b"".join(b"Content-Length: " + value + CRLF for value in values)
    talk.send(b"POST /classify HTTP/1.1\r\nHost: a\r\n", JPEG, headers, CRLF, jpeg_bytes)
    assert talk.reply().status == status
    if status == 400:
        assert talk.is_closed()


def test_expect_100_continue_is_answered_before_the_body(talk: Conversation, jpeg_bytes: bytes) -> None:
    head, _, body = post(jpeg_bytes, JPEG + b"Expect: 100-Continue\r\n").partition(b"\r\n\r\n")
    talk.send(head, b"\r\n\r\n")
    assert talk.connection.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
    talk.send(body)
    assert talk.reply().status == 200


def test_a_rejection_needs_no_body_from_a_client_that_expects_100(talk: Conversation) -> None:
    talk.send(b"POST /classify?topk=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
    assert talk.connection.recv(12) == b"HTTP/1.1 422"


# HEAD


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/docs", "/page/try/try.css", "/openapi.json", "/livez", "/healthz", "/readyz", "/startupz", "/ping"),
        *("/metrics", "/models", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/tiny", "/nowhere"),
        *("/v2/models/tiny/ready", "/v2/models/tiny/versions/1/ready", "/v2/models/other", "/classify"),
        "/page/samples/cat.jpg",
    ],
)
def test_head_has_the_headers_of_get_and_no_body(talk: Conversation, path: str) -> None:
    talk.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    got = talk.reply()
    talk.send(f"HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), LIVE)
    head = talk.reply(head_only=True)
    assert talk.reply().json() == {"status": "alive"}
    assert (head.status, sorted(head.headers.keys())) == (got.status, sorted(got.headers.keys()))
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    if path not in ("/metrics", "/models"):  # they change
        assert int(head.headers["Content-Length"]) == len(got.body)


# The query


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("topk=3", "topk; did you mean top_k?"),
        ("topK=3", "topK; did you mean top_k?"),
        ("top-k=3", "top-k; did you mean top_k?"),
        ("TOP_K=3", "TOP_K; did you mean top_k?"),
        ("top_k=1&k=3", "k; did you mean top_k?"),
        ("top_k=1&top=3", "top; did you mean top_k?"),
        ("timeout=3", "timeout; did you mean timeout_ms?"),
        ("timeoutms=3", "timeoutms; did you mean timeout_ms?"),
        ("top_k=1&top_k=2", "top_k is given twice, as 1 and as 2"),
    ],
)
def test_a_parameter_that_nearly_has_a_known_name_is_named(talk: Conversation, query: str, named: str) -> None:
    for path in ("/classify", "/invocations"):
        talk.send(post(b"", target=f"{path}?{query}".encode()))
        reply = talk.reply()
        assert (reply.status, reply.json()["code"]) == (422, "invalid_parameter")
        assert named in reply.json()["detail"]


@pytest.mark.parametrize("path", ["/readyz", "/ping", "/v2/health/ready", "/v2/models/tiny/ready"])
def test_the_parameters_of_probes_have_their_names_too(talk: Conversation, path: str) -> None:
    talk.send(f"GET {path}?verbos HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert "did you mean verbose?" in talk.reply().json()["detail"]
    talk.send(f"GET {path}?verbose HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert talk.reply().json()["checks"]["golden"] == "ok"
    talk.send(f"GET {path}?verbose=false&probe=lb HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert "checks" not in talk.reply().json()


@pytest.mark.parametrize(
    "query",
    ["stop=3&to=x&t=1&n=5", "utm_source=x&_=1&fbclid=y&cachebuster=2", "", "&&", "top_k=1&top_k=1", "=1", "%FF=1"],
)
def test_foreign_parameters_are_ignored(talk: Conversation, jpeg_bytes: bytes, query: str) -> None:
    talk.send(post(jpeg_bytes, target=f"/classify?{query}".encode()))
    assert talk.reply().status == 200


# Names of files


def test_the_name_of_a_file_comes_back_whatever_is_in_it(talk: Conversation, jpeg_bytes: bytes) -> None:
    names = [b"cat\x1b[31m.jpg", b"\xff\xfe.jpg", "猫\u202e.jpg".encode(), b"a\tb.jpg", b"\x7f.jpg"]
    parts = [b'Content-Disposition: form-data; name=a; filename="' + name + b'"\r\n' for name in names]
    body = b"".join(form(jpeg_bytes, part)[: -len(b"--b--\r\n")] for part in parts) + b"--b--\r\n"
    talk.send(post(body, FORM))
    results = talk.reply().json()["results"]
    assert [result["filename"] for result in results] == [name.decode("utf-8", "replace") for name in names]
