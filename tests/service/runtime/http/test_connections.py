"""Real sockets, a small application, and times of a few hundredths of a second."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from service.runtime.http import connections as module
from service.runtime.http.accepting import Acceptor
from service.runtime.http.connections import Connection, Connections
from service.runtime.listener import listen

SHORT_S = 0.05
LONG_S = 30.0
HEAD = b"POST %b HTTP/1.1\r\nHost: a\r\n%b\r\n"
LARGE = bytes(8 << 20)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """What a path does: see below."""
    path, body = scope["path"], b""
    if path == "/echo":
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
    elif path == "/large":
        body = LARGE
    elif path == "/never":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    elif path == "/stuck":
        await asyncio.Event().wait()
    elif path == "/broken":
        raise ValueError("broken")
    elif path == "/pieces":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
        return
    headers = [(b"content-length", b"%d" % len(body))] if path != "/bare" else []
    start: Message = {"type": "http.response.start", "status": 204 if path == "/bare" else 200, "headers": headers}
    if path == "/split":
        start["headers"].append((b"x", b"y\r\nz: 1"))
    await send(start)
    await send({"type": "http.response.body", "body": body})


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))
        await self.writer.drain()

    async def reply(self) -> tuple[int, bytes]:
        """Status and body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def is_closed(self) -> bool:
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True


class Running:
    def __init__(self, all_: Connections, port: int) -> None:
        self.all, self.port = all_, port
        self._clients: list[Client] = []

    async def client(self, **options: Any) -> Client:
        self._clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port, **options)))
        return self._clients[-1]

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110  # of what there is no event
            await asyncio.sleep(0.005)

    def close(self) -> None:
        for client in self._clients:
            client.writer.transport.abort()


@asynccontextmanager
async def running(**times: float) -> AsyncIterator[Running]:
    long: dict[str, float] = dict.fromkeys(("head_s", "keep_alive_s", "linger_s", "linger_silent_s"), LONG_S)
    all_ = Connections(app, most_discarded_bytes=16 << 20, **{**long, **times})  # type: ignore[arg-type]
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    acceptor = Acceptor(listener, partial(Connection, all_), 64)
    server = Running(all_, port)
    try:
        yield server
    finally:
        server.close()
        for task in all_.tasks:
            task.cancel()
        await asyncio.gather(*all_.tasks, return_exceptions=True)
        await server.until(lambda: not all_.open)
        acceptor.close()
        await acceptor.wait_closed()


# Every state has a timer that ends it


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("keep_alive_s", b""),
        ("keep_alive_s", b"\r\n\r\n"),
        ("keep_alive_s", HEAD % (b"/echo", b"Content-Length: 1\r\n") + b"x"),
        ("head_s", b"GET"),
        ("head_s", HEAD % (b"/echo", b"") + b"GET"),
        ("head_s", HEAD % (b"/early", b"Content-Length: 2\r\n") + b"xx" + b"GET"),
        ("linger_silent_s", HEAD % (b"/early", b"Content-Length: 9\r\n") + b"x"),
        ("linger_silent_s", HEAD % (b"/early", b"Content-Length: 9\r\nExpect: 100-continue\r\n")),
        ("linger_silent_s", HEAD % (b"/early", b"Content-Length: 9\r\nConnection: close\r\n") + b"x"),
        ("linger_silent_s", b"junk\r\n\r\n"),
    ],
)
def test_no_state_lasts_for_longer_than_its_time(run: Callable[..., Any], name: str, sent: bytes) -> None:
    async def stay() -> None:
        times = {name: SHORT_S, "linger_silent_s": SHORT_S}
        async with running(**times) as server:
            client = await server.client()
            await client.send(sent)
            await server.until(lambda: bool(server.all.open))
            await server.until(lambda: not server.all.open)
            assert not server.all.idle
            assert not server.all.lingering

    run(stay())


def test_an_answer_that_is_not_read_ends_the_connection(run: Callable[..., Any]) -> None:
    async def stay() -> None:
        async with running(keep_alive_s=SHORT_S, linger_silent_s=SHORT_S) as server:
            connection = socket.create_connection(("127.0.0.1", server.port))
            with connection:
                connection.sendall(HEAD % (b"/large", b"") * 2)
                await server.until(lambda: bool(server.all.open))
                await server.until(lambda: not server.all.open)

    run(stay())


@pytest.mark.parametrize("sent", [b"", HEAD % (b"/echo", b""), b"GET", HEAD % (b"/never", b"Content-Length: 9\r\n")])
def test_at_every_moment_a_timer_owns_the_connection(run: Callable[..., Any], sent: bytes) -> None:
    async def look() -> None:
        async with running() as server:
            client = await server.client()
            await client.send(sent)
            await server.until(lambda: bool(server.all.open))
            for _ in range(10):
                (connection,) = server.all.open
                assert connection._timer is not None
                await asyncio.sleep(0)

    run(look())


def test_a_client_that_reads_slowly_but_reads_is_not_cut_off(run: Callable[..., Any]) -> None:
    async def read() -> None:
        async with running(keep_alive_s=0.2, linger_silent_s=0.2) as server:
            client = await server.client(limit=1 << 16)
            await client.send(HEAD % (b"/large", b""))
            await client.reader.readuntil(b"\r\n\r\n")
            for _ in range(8):
                await client.reader.readexactly(1 << 20)
                await asyncio.sleep(0.1)

    run(read())


# An answer that is sent before the body is read arrives


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("connection", [b"", b"Connection: close\r\n", b"Connection: keep-alive\r\n"])
@pytest.mark.parametrize("size", [100, 300_000, 8_000_000])
def test_an_early_answer_arrives(run: Callable[..., Any], version: bytes, connection: bytes, size: int) -> None:
    async def ask() -> None:
        async with running() as server:
            client = await server.client()
            head = (HEAD % (b"/early", connection + b"Content-Length: %d\r\n" % size)).replace(b"1.1", version)
            client.writer.write(head)
            for _ in range(10):
                client.writer.write(bytes(size // 10))
                await client.writer.drain()
            assert await client.reply() == (200, b"")
            if version == b"1.0" or b"close" in connection:
                assert await client.is_closed()
            else:
                await client.send(HEAD % (b"/echo", b"Content-Length: 2\r\n"), b"hi")
                assert await client.reply() == (200, b"hi")

    run(ask())


def test_the_rest_of_a_body_is_read_within_bounds(run: Callable[..., Any]) -> None:
    async def flood() -> None:
        async with running() as server:
            client = await server.client()
            client.writer.write(HEAD % (b"/early", b"Content-Length: 999999999\r\n"))
            with suppress(ConnectionError):
                for _ in range(100):
                    await client.send(bytes(1 << 20))
                    await asyncio.sleep(0)
                pytest.fail("all of it was read")
            assert not server.all.open

    run(flood())


def test_a_connection_that_only_lingers_makes_room_before_an_idle_one(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fill() -> None:
        monkeypatch.setattr(module, "most_connections", lambda: 3)
        async with running() as server:
            idle, answered, busy = [await server.client() for _ in range(3)]
            await server.until(lambda: len(server.all.open) == 3)
            await answered.send(HEAD % (b"/early", b"Content-Length: 9\r\n"))
            assert (await answered.reply())[0] == 200
            await busy.send(HEAD % (b"/never", b""))
            await server.until(lambda: len(server.all.idle) == 1)
            new = await server.client()
            await new.send(HEAD % (b"/echo", b""))
            assert (await new.reply())[0] == 200
            assert await answered.is_closed()
            await idle.send(HEAD % (b"/echo", b""))
            assert (await idle.reply())[0] == 200
            await new.send(HEAD % (b"/never", b""))
            await idle.send(HEAD % (b"/never", b""))
            await server.until(lambda: not server.all.idle)
            assert (await (await server.client()).reply())[0] == 503

    run(fill())


# Bodies and answers


def test_a_body_is_read_no_faster_than_the_application_takes_it(run: Callable[..., Any]) -> None:
    async def flood() -> None:
        async with running() as server:
            client = await server.client()
            client.writer.write(HEAD % (b"/stuck", b"Content-Length: 50000000\r\n"))
            client.writer.write(bytes(20_000_000))
            await server.until(lambda: bool(server.all.open))
            await asyncio.sleep(0.1)
            (connection,) = server.all.open
            assert 0 < connection._call._untaken < 1 << 20

    run(flood())


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_pipelined_requests_are_answered_in_order_however_they_arrive(run: Callable[..., Any], size: int) -> None:
    requests = b"".join(
        [
            HEAD % (b"/echo", b"Content-Length: 3\r\n") + b"one\r\n",
            HEAD % (b"/early", b"Transfer-Encoding: chunked\r\n") + b"3\r\ntwo\r\n0\r\n\r\n",
            HEAD % (b"/echo", b"Transfer-Encoding: chunked\r\n") + b"2\r\nth\r\n3\r\nree\r\n0\r\n\r\n",
            HEAD % (b"/echo", b""),
        ]
    )

    async def ask() -> None:
        async with running() as server:
            client = await server.client()
            for start in range(0, len(requests), size):
                await client.send(requests[start : start + size])
                await asyncio.sleep(0)
            assert [await client.reply() for _ in range(4)] == [(200, b"one"), (200, b""), (200, b"three"), (200, b"")]

    run(ask())


@pytest.mark.parametrize(
    ("path", "version", "answer"),
    [
        (b"/pieces", b"1.1", b"transfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
        (b"/pieces", b"1.0", b"connection: close\r\n\r\nonetwo"),
        (b"/bare", b"1.0", b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
        (b"/broken", b"1.1", b"connection: close\r\n\r\nInternal Server Error"),
        (b"/split", b"1.1", b"connection: close\r\n\r\nInternal Server Error"),
    ],
)
def test_an_answer_ends_as_its_head_says(run: Callable[..., Any], path: bytes, version: bytes, answer: bytes) -> None:
    async def ask() -> None:
        async with running() as server:
            client = await server.client()
            await client.send((HEAD % (path, b"")).replace(b"1.1", version))
            received = b""
            while not received.endswith(answer):
                piece = await client.reader.read(1000)
                assert piece, received
                received += piece

    run(ask())


def test_a_thousand_chunks_a_turn_leave_the_loop_to_others(run: Callable[..., Any]) -> None:
    async def ask() -> None:
        async with running() as server:
            client = await server.client()
            await client.send(
                HEAD % (b"/echo", b"Transfer-Encoding: chunked\r\n"), b"1\r\na\r\n" * 20_000, b"0\r\n\r\n"
            )
            assert await client.reply() == (200, b"a" * 20_000)

    run(ask())


def test_a_connection_of_a_process_that_ends_is_closed_after_its_answer(run: Callable[..., Any]) -> None:
    async def end() -> None:
        async with running() as server:
            idle, sending = await server.client(), await server.client()
            await sending.send(HEAD % (b"/echo", b"Content-Length: 2\r\n"))
            await server.until(lambda: bool(server.all.tasks) and len(server.all.open) == 2)
            for connection in list(server.all.open):
                connection.shutdown()
            assert await idle.is_closed()
            await sending.send(b"hi")
            assert await sending.reply() == (200, b"hi")
            assert await sending.is_closed()

    run(end())


def test_most_connections_leave_files_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, most in ((100, 50), (10_000, 9500)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert module.most_connections() == most
