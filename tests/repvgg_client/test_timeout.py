"""The timeout is the total, whatever drips."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from repvgg_client import AsyncClient, Client, ClientError, ConnectionFailed

TIMEOUT_S = 1.0
# What does not end drips for an hour.
SOON_S = 15.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 0\r\nConnection: close\r\n\r\n"
Serve = Callable[[socket.socket], None]


def read_request(connection: socket.socket) -> None:
    while b"\r\n\r\n" not in connection.recv(1 << 16):
        """The image is small: it comes with the head or is not needed."""


def drip(connection: socket.socket, text: bytes) -> None:
    for byte in text * 1000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def drips_head(connection: socket.socket) -> None:
    read_request(connection)
    drip(connection, b"HTTP/1.1 200 OK\r\n" + b"X-Header: x\r\n")


def drips_interim_answers(connection: socket.socket) -> None:
    read_request(connection)
    drip(connection, b"HTTP/1.1 102 Processing\r\n\r\n")


def drips_body(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(HEAD)
    drip(connection, b" ")


def reads_slowly(connection: socket.socket) -> None:
    while connection.recv(1):
        time.sleep(0.05)


def says_nothing(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        """Until the client gives up."""


class Slow:
    """One that is busy first and drips then."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, connection: socket.socket) -> None:
        self.asked += 1
        if self.asked < 3:
            read_request(connection)
            connection.sendall(BUSY)
        else:
            drips_body(connection)


@contextmanager
def server(serve: Serve) -> Iterator[str]:
    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                serve(connection)
            except OSError:
                """The client has left."""

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


SERVERS = [drips_head, drips_interim_answers, drips_body, reads_slowly, says_nothing, Slow()]


@pytest.mark.parametrize("serve", SERVERS, ids=lambda serve: getattr(serve, "__name__", "Slow"))
@pytest.mark.parametrize("blocking", [True, False])
def test_the_timeout_is_the_total_whatever_drips(serve: Serve, blocking: bool) -> None:
    images = [bytes(3_000_000)] if serve is reads_slowly else [b"image"]

    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            await client.classify(images, timeout_s=TIMEOUT_S)

    def ask_blocking(url: str) -> None:
        with Client(url, timeout_s=TIMEOUT_S) as client:
            client.classify(images)

    with server(serve) as url:
        started = time.monotonic()
        with pytest.raises(ClientError):
            ask_blocking(url) if blocking else asyncio.run(ask(url))
        assert time.monotonic() - started < SOON_S


def test_a_client_can_be_used_again_after_a_timeout() -> None:
    with server(drips_body) as url, Client(url, timeout_s=0.2) as client:
        for _ in range(2):
            with pytest.raises(ConnectionFailed, match="no complete answer within"):
                client.classify(b"image")
