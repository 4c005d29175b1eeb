"""Misbehaving clients: the real server answers them or disconnects them, and other clients are not affected."""

from __future__ import annotations

import email
import json
import re
import resource
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from service.api.conduct import PERIOD_S
from service.runtime.http.connections import LINGER_SILENT_S

if TYPE_CHECKING:
    from conftest import Server

LIMIT_S = 60.0
POST = b"POST /classify?timeout_ms=300 HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as connection:
        yield connection


def reply_to(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of the next reply; checks that its request id is in the header too."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += received(connection, 1)
    status, _, lines = head.decode().partition("\r\n")
    headers = email.message_from_string(lines)
    assert headers["X-Request-ID"]
    return int(status.split()[1]), json.loads(received(connection, int(headers["Content-Length"])))


def received(connection: socket.socket, size: int) -> bytes:
    content = connection.recv(size, socket.MSG_WAITALL)
    assert len(content) == size, f"the server closed after {content!r}"
    return content


def refused(connection: socket.socket, status: int, code: str) -> str:
    """Checks that the next reply is a problem document -> its detail."""
    got, problem = reply_to(connection)
    assert (got, problem["status"], problem["code"]) == (status, status, code)
    return str(problem["detail"])


def closed(connection: socket.socket) -> bool:
    """Whether the server closes the connection without a further reply."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.fixture
def impatient(start: Callable[..., Server]) -> Server:
    """A server that allows a request 500 ms, head and body."""
    return start("--timeout-ms", 500).wait_until_serving()


def send_without_end(connection: socket.socket, piece: bytes) -> None:
    """Raises OSError once the server stops reading."""
    while True:
        connection.sendall(piece)


def answers(server: Server, jpeg: bytes) -> bool:
    """Whether the server answers on a new connection."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
    with closing(connection):
        connection.request("POST", "/classify", jpeg, {"Content-Type": "image/jpeg"})
        return connection.getresponse().status == 200


# Slow clients


def test_a_head_that_does_not_arrive_in_time_is_answered_408(impatient: Server) -> None:
    with connected(impatient) as connection:
        connection.sendall(b"GET /livez HT")
        assert "did not arrive within 0.5 s" in refused(connection, 408, "request_timeout")
        assert closed(connection)


def test_a_slow_head_gets_no_more_time_than_a_silent_one(impatient: Server) -> None:
    with connected(impatient) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        connection.settimeout(0.02)
        for _ in range(3000):
            connection.sendall(b"x: y\r\n")
            try:
                assert connection.recv(12) == b"HTTP/1.1 408"
                return
            except TimeoutError:
                continue
    pytest.fail("the server waited for a minute")


def test_a_slow_second_request_has_its_own_time_limit(impatient: Server) -> None:
    with connected(impatient) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert reply_to(connection) == (200, {"status": "alive"})
        connection.sendall(b"GET /li")
        refused(connection, 408, "request_timeout")


def test_a_body_that_does_not_arrive_is_answered_504_and_the_connection_closed(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(CHUNKED + b"1\r\n\xff\r\n")
        refused(connection, 504, "deadline_exceeded")
        assert closed(connection)


def test_a_body_that_never_follows_100_continue_times_out(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(POST + b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        refused(connection, 504, "deadline_exceeded")


def send_slowly(connection: socket.socket, content: bytes, seconds: float) -> None:
    size = max(1, len(content) // 20)
    for start in range(0, len(content), size):
        connection.sendall(content[start : start + size])
        time.sleep(seconds / 20)


def test_a_slow_client_that_keeps_sending_is_answered(impatient: Server, jpeg_bytes: bytes) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    with connected(impatient) as connection:
        connection.sendall(head % len(jpeg_bytes))
        send_slowly(connection, jpeg_bytes, 2.0)  # four times the deadline of the work
        assert reply_to(connection)[0] == 200


def test_an_upload_over_its_own_limit_is_answered_408_and_the_connection_closed(start: Callable[..., Server]) -> None:
    server = start("--upload-timeout-ms", 500).wait_until_serving()
    with connected(server) as connection:
        connection.sendall(CHUNKED.replace(b"?timeout_ms=300", b"") + b"1\r\n\xff\r\n")
        assert "did not arrive within 0.5 s" in refused(connection, 408, "upload_timeout")
        assert closed(connection)


def test_a_slow_upload_does_not_keep_the_server_from_ending(start: Callable[..., Server]) -> None:
    server = start("--timeout-ms", 1000, "--drain-seconds", 0).wait_until_serving()
    with connected(server) as connection:
        connection.sendall(CHUNKED.replace(b"?timeout_ms=300", b"") + b"1\r\n\xff\r\n")
        time.sleep(0.2)
        server.signal(signal.SIGTERM)
        refused(connection, 503, "draining")
        assert server.wait()[0] == 0


# Endless bodies


def test_an_endless_body_is_rejected_over_the_limit_and_not_read_further(server: Server) -> None:
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    with connected(server) as connection:
        connection.sendall(CHUNKED.replace(b"300", b"60000"))
        with pytest.raises(ConnectionError):
            send_without_end(connection, chunk)


def test_a_client_that_stops_sending_when_rejected_can_read_the_reason(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(POST + b"Content-Length: 99999999999\r\n\r\n" + bytes(100_000))
        refused(connection, 413, "body_too_large")


def test_a_client_that_is_answered_while_sending_can_read_the_response(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n")
        connection.sendall(bytes(5_000_000))
        refused(connection, 404, "not_found")
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")  # and the connection stays open
        assert reply_to(connection)[0] == 200


def test_the_next_request_may_follow_the_rest_of_an_unread_body(server: Server, jpeg_bytes: bytes) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    with connected(server) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + bytes(500))
        refused(connection, 404, "not_found")
        connection.sendall(bytes(500) + head % len(jpeg_bytes) + jpeg_bytes[:100])
        time.sleep(LINGER_SILENT_S + 0.5)
        connection.sendall(jpeg_bytes[100:])
        assert reply_to(connection)[0] == 200


# Invalid HTTP


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed_request"),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400, "malformed_request"),
        (b"G\x00T /livez HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_request"),
        (b"GET /" + b"a" * 70_000, 431, "headers_too_large"),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 70_000, 431, "headers_too_large"),
        (POST + b"Content-Length: -5\r\n\r\nabcde", 400, "malformed_request"),
        (POST + b"Content-Length: five\r\n\r\nabcde", 400, "malformed_request"),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", 400, "malformed_request"),
        (POST + b"Content-Length: " + b"9" * 50 + b"\r\n\r\nabc", 400, "malformed_request"),
        (CHUNKED + b"xyz\r\n", 400, "malformed_request"),
        (CHUNKED + b"ffffffffffffffffffffffff\r\n", 400, "malformed_request"),
        (CHUNKED + b"5\r\nabcdefghi\r\n", 400, "malformed_request"),
    ],
)
def test_anything_but_http_is_answered_and_the_connection_closed(
    server: Server, head: bytes, status: int, code: str
) -> None:
    with connected(server) as connection:
        connection.sendall(head)
        refused(connection, status, code)
        assert closed(connection)


def test_bytes_after_the_content_length_are_another_request(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(POST + b"Content-Length: 3\r\n\r\nabcdef /livez\r\n\r\n")
        refused(connection, 422, "undecodable_image")
        refused(connection, 400, "malformed_request")
        assert closed(connection)


# Disconnecting clients


@pytest.mark.parametrize("leave", [socket.socket.close, lambda one: one.shutdown(socket.SHUT_WR)])
def test_a_client_that_disconnects_during_the_upload_stops_it(
    server: Server, http: httpx.Client, wait_until: Callable[..., None], leave: Callable[[socket.socket], None]
) -> None:
    def left() -> float:
        found = re.search(r'repvgg_requests_cancelled_total{stage="read"} (.+)', http.get("/metrics").text)
        assert found is not None
        return float(found[1])

    before = left()
    with connected(server) as connection:
        connection.sendall(CHUNKED.replace(b"300", b"60000") + b"4\r\nabcd\r\n")
        leave(connection)
        wait_until(lambda: left() == before + 1)


def test_unread_responses_do_not_pile_up(server: Server, jpeg_bytes: bytes) -> None:
    with connected(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1)
        with pytest.raises(TimeoutError):  # the server stops reading
            send_without_end(connection, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
        assert answers(server, jpeg_bytes)


# Many clients


def test_idle_connections_make_room_for_active_ones(start: Callable[..., Server], jpeg_bytes: bytes) -> None:
    server = start().wait_until_serving()
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (200, 200))
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connected(server))
        for _ in range(20):
            assert answers(server, jpeg_bytes)


def test_busy_connections_are_kept_and_the_next_one_is_rejected(start: Callable[..., Server]) -> None:
    server = start().wait_until_serving()
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (100, 100))
    with ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(connected(server))
            connection.sendall(POST.replace(b"300", b"60000") + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection = stack.enter_context(connected(server))
        refused(connection, 503, "overloaded")
        assert closed(connection)


def series(client: httpx.Client) -> set[str]:
    lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


def test_no_client_can_increase_the_number_of_series(http: httpx.Client, jpeg_bytes: bytes) -> None:
    def visit(name: str) -> None:
        http.request(name.upper(), f"/{name}?{name}=1", headers={"X-Request-ID": name, name: name})
        http.post("/classify", content=jpeg_bytes, headers={"content-type": f"image/{name}"})
        http.post("/classify", files={name: (f"{name}.{name}", name.encode())})

    visit("first")
    series(http)  # the first scrape adds the series of its own route
    before = series(http)
    for number in range(20):
        visit(f"other{number}")
    assert series(http) == before


# Clients that ignore Retry-After


def flood(connections: list[socket.socket], seconds: float) -> tuple[int, int]:
    """Each sends its next request as soon as it is answered -> answers and refusals."""
    request = POST.replace(b"300", b"1") + b"Content-Length: 1\r\n\r\nx"
    answers = refusals = 0
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as ready:
        for connection in connections:
            connection.sendall(request)
            ready.register(connection, selectors.EVENT_READ)
        while time.monotonic() < end:
            for key, _ in ready.select(0.1):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                refused = connection.recv(65536).startswith((b"HTTP/1.1 503", b"HTTP/1.1 504"))
                answers, refusals = answers + (not refused), refusals + refused
                connection.sendall(request)
    return answers, refusals


def test_the_refusals_of_clients_that_ignore_retry_after_are_held_back(start: Callable[..., Server]) -> None:
    server = start().wait_until_serving()
    clients, seconds = 100, 2.0
    with ExitStack() as stack:
        connections = [stack.enter_context(connected(server)) for _ in range(clients)]
        _, refusals = flood(connections, seconds)
        with connected(server) as probe:
            probe.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert reply_to(probe) == (200, {"status": "alive"})
    # The first of each client is sent at once, the others at a bounded rate; without that there were thousands.
    assert clients <= refusals <= clients + 1.5 * seconds / PERIOD_S


def test_a_client_that_leaves_while_its_refusal_is_held_back_is_gone_for_the_server(
    start: Callable[..., Server], jpeg_bytes: bytes
) -> None:
    server = start("--drain-seconds", 0).wait_until_serving()
    with ExitStack() as stack:
        flood([stack.enter_context(connected(server)) for _ in range(20)], 0.5)
    assert answers(server, jpeg_bytes)
    server.signal(signal.SIGTERM)
    assert server.wait()[0] == 0
