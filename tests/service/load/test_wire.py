from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.load.wire import MOST_IDLE_S, Address, Broken, Pool, PreparedRequest, Reply

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head, await reader.readexactly(length)


def answering(*answers: bytes, seen: list[tuple[bytes, bytes]] | None = None) -> Serve:
    """Each connection gets the answers in turn, one a request, and is closed then."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):  # the client has closed before
            for answer in answers:
                request = await read_request(reader)
                if seen is not None:
                    seen.append(request)
                writer.write(answer)
                await writer.drain()
        writer.close()

    return serve


async def asked(
    serve: Serve, times: int = 1, give_up_after_s: float = 30.0, tls: ssl.SSLContext | None = None
) -> tuple[list[Reply | Broken], int]:
    """-> what came of `times` requests, one after the other, and how many connections they took."""
    connections = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await serve(reader, writer)

    server = await asyncio.start_server(counted, "127.0.0.1", 0, ssl=tls)
    address = Address("localhost" if tls else "127.0.0.1", server.sockets[0].getsockname()[1], tls is not None)
    request = PreparedRequest(address, "/classify", [("X-Test", "yes")], b"image")
    pool, found = Pool(address), []
    for _ in range(times):
        try:
            found.append(await pool.ask(request, asyncio.get_running_loop().time() + give_up_after_s))
        except Broken as broken:
            found.append(broken)
    pool.close()
    server.close()
    await server.wait_closed()
    return found, connections


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer-Timing: total;dur=1\r\n\r\nhi"


def test_a_prepared_request_is_sent_unchanged_any_number_of_times(run: Callable[..., Any]) -> None:
    seen: list[tuple[bytes, bytes]] = []
    found, connections = run(asked(answering(OK, OK, OK, seen=seen), times=3))
    assert [(reply.status, reply.body) for reply in found] == [(200, b"hi")] * 3
    assert found[0].headers["server-timing"] == "total;dur=1"
    assert len(set(seen)) == 1
    head, body = seen[0]
    assert head.startswith(b"POST /classify HTTP/1.1\r\n")
    assert b"\r\nX-Test: yes\r\n" in head
    assert body == b"image"
    assert connections == 1


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", b"hi"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"hi"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
    ],
)
def test_every_way_to_end_an_answer_is_understood(run: Callable[..., Any], answer: bytes, body: bytes) -> None:
    found, _ = run(asked(answering(answer)))
    assert [reply.body for reply in found] == [body]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "connection closed"),
        (b"", "connection closed"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP/1.1"),
    ],
)
def test_any_failure_to_get_a_complete_answer_raises_broken(run: Callable[..., Any], answer: bytes, why: str) -> None:
    found, _ = run(asked(answering(answer)))
    assert [str(broken) for broken in found] == [why]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Key and certificate of localhost, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    pem, key = tmp_path / "localhost.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*make.split(), "-keyout", key, "-out", pem], check=True, capture_output=True)
    pem.write_text(key.read_text() + pem.read_text())
    return pem


@pytest.mark.parametrize("trusted", [True, False])
def test_https_works_with_certificates_that_the_machine_trusts(
    run: Callable[..., Any], certificate: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    (outcome,), _ = run(asked(answering(OK), tls=server))
    if trusted:
        assert (outcome.status, outcome.body) == (200, b"hi")
    else:
        assert "certificate verify failed" in str(outcome)


def test_no_answer_in_time_is_broken(run: Callable[..., Any]) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client has closed
        writer.close()

    found, _ = run(asked(silent, give_up_after_s=0.05))
    assert [str(broken) for broken in found] == ["no answer in time"]


def test_a_port_without_a_server_is_broken(run: Callable[..., Any]) -> None:
    async def ask() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        server.close()
        await server.wait_closed()
        with pytest.raises(Broken, match=r"^connection refused$"):
            await Pool(address).ask(PreparedRequest(address, "/", [], b""), asyncio.get_running_loop().time() + 30)

    run(ask())


def test_a_connection_that_the_server_wants_closed_is_not_reused(run: Callable[..., Any]) -> None:
    last = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    found, connections = run(asked(answering(last), times=2))
    assert [reply.status for reply in found] == [200, 200]
    assert connections == 2


def test_a_connection_that_was_idle_for_long_is_not_reused(run: Callable[..., Any]) -> None:
    async def ask() -> None:
        server = await asyncio.start_server(answering(OK, OK), "127.0.0.1", 0)
        address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        request, pool = PreparedRequest(address, "/", [], b""), Pool(address)
        await pool.ask(request, asyncio.get_running_loop().time() + 30)
        (old,) = pool._idle
        old.idle_since -= MOST_IDLE_S + 1
        await pool.ask(request, asyncio.get_running_loop().time() + 30)
        assert not old.usable
        assert len(pool._idle) == 1
        pool.close()
        server.close()
        await server.wait_closed()

    run(ask())


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", Address("127.0.0.1", 8000)),
        ("http://example.org/classify", Address("example.org", 80)),
        ("https://example.org", Address("example.org", 443, tls=True)),
        ("http://[::1]:8000", Address("::1", 8000)),
    ],
)
def test_where_a_url_leads(url: str, address: Address) -> None:
    assert Address.of(url) == address


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://example.org", "http://", "http://a:port", ""])
def test_an_invalid_url_is_rejected(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of urllib's own for a port, of ours else
        Address.of(url)
