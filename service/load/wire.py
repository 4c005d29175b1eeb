"""The load generator's HTTP/1.1 client: prepared requests over keep-alive connections, one in flight on each.

1. a prepared request is sent unchanged any number of times;
2. any failure to get a complete answer raises Broken, with a short text by which failures can be counted;
3. a connection that the server wants closed, or that has been idle for long, is not reused.

The generator shares its machine with the server, so an answer must cost little. One with a Content-Length, as ours have
it, is read here in a few microseconds; h11, which takes 40 (measured), reads all others.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import h11

# Servers close idle connections after 5 s (uvicorn's default) or more; a request must not race with that.
MOST_IDLE_S = 4.0


class Broken(Exception):
    """There was no complete answer; the text gives the reason, in the same words each time."""


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int
    tls: bool = False

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises ValueError unless it is an http:// or https:// URL with a host."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url} is not a URL such as http://127.0.0.1:8000")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls)


class PreparedRequest:
    """`POST target` with a body, ready to send."""

    def __init__(
        self, address: Address, target: str, headers: list[tuple[str, str]], body: bytes, *, method: str = "POST"
    ) -> None:
        host = f"[{address.host}]" if ":" in address.host else address.host
        lines = [("Host", f"{host}:{address.port}"), *headers, ("Content-Length", str(len(body)))]
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        self.content = f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


@dataclass
class Reply:
    """`head`: status line and headers as they came."""

    status: int
    head: bytes
    body: bytes = b""

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name."""
        lines = (line.partition(":") for line in self.head.decode("latin-1").split("\r\n")[1:])
        return {name.lower(): value.strip() for name, _, value in lines if name}


class Connection(asyncio.Protocol):
    """A keep-alive connection with at most one request in flight."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.usable = False
        self._waiting: asyncio.Future[Reply] | None = None
        self._received = b""
        self._slow: _SlowReader | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.usable = True

    async def ask(self, request: PreparedRequest, give_up_at: float) -> Reply:
        """Waits for the answer until `give_up_at`, a time of the event loop's clock. Raises Broken."""
        waiting: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting = waiting
        self._received, self._slow = b"", None
        timer = self._loop.call_at(give_up_at, self._break, "no answer in time")
        try:
            self._transport.write(request.content)  # in one write, so that the server wakes up only once
            return await waiting
        finally:
            timer.cancel()
            if self._waiting is not None:  # cancelled, or the answer is incomplete
                self.close()

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        try:
            reply = self._read(data)
        except _NotHttp:
            self._break("not HTTP/1.1")
            return
        if reply is not None:
            self._finish(reply)

    def _read(self, data: bytes) -> Reply | None:
        """None while it is incomplete."""
        if self._slow is not None:
            return self._slow.read(data)
        received = self._received
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        found = _PLAIN_ANSWER.match(received)
        length = _LENGTH.search(received, 0, end + 2)
        if found is None or length is None:
            self._slow = _SlowReader()
            return self._slow.read(received)
        if len(received) < end + 4 + int(length[1]):
            return None
        return Reply(int(found[1]), received[:end], received[end + 4 :])

    def _finish(self, reply: Reply) -> None:
        if self._waiting is None or self._waiting.done():
            return
        if _CLOSE.search(reply.head):
            self.close()
        self.idle_since = self._loop.time()
        self._waiting.set_result(reply)
        self._waiting = None

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if error is None and self._slow is not None and self._waiting is not None:
            reply = self._slow.read_end()
            if reply is not None:
                self._finish(reply)
        self._break("connection reset" if error else "connection closed")

    def _break(self, why: str) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(Broken(why))

    def close(self) -> None:
        self.usable = False
        self._transport.abort()


class _NotHttp(Exception):
    """The server answered something else."""


class _SlowReader:
    """Any answer that HTTP/1.1 knows. Raises _NotHttp."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._http.send(h11.Request(method="POST", target="/", headers=[("Host", "a"), ("Content-Length", "0")]))
        self._http.send(h11.EndOfMessage())
        self._reply: Reply | None = None

    def read(self, data: bytes) -> Reply | None:
        try:
            self._http.receive_data(data)
            while (event := self._http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Response):
                    lines = [name + b": " + value for name, value in event.headers]
                    self._reply = Reply(event.status_code, b"\r\n".join([b"", *lines]))
                elif isinstance(event, h11.Data) and self._reply:
                    self._reply.body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return self._whole()
                elif isinstance(event, h11.ConnectionClosed):
                    return None
        except h11.RemoteProtocolError:
            if self._http.trailing_data[1]:  # the end of the connection came in the middle
                return None
            raise _NotHttp from None
        return None

    def _whole(self) -> Reply | None:
        if self._reply and self._http.our_state is h11.MUST_CLOSE:
            self._reply.head += b"\r\nconnection: close"
        return self._reply

    def read_end(self) -> Reply | None:
        """The connection has ended: so has an answer without a length."""
        return self.read(b"")


# An answer that says how long it is, and is no interim one (100 Continue).
_PLAIN_ANSWER = re.compile(rb"HTTP/1\.1 ([2-5]\d\d)[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass
class Pool:
    """As many connections to one server as there are requests in flight; the most recently used one is used next."""

    address: Address
    _idle: deque[Connection] = field(default_factory=deque)

    async def ask(self, request: PreparedRequest, give_up_at: float) -> Reply:
        """Raises Broken."""
        connection = self._kept() or await self._connect(give_up_at)
        reply = await connection.ask(request, give_up_at)
        if connection.usable:
            self._idle.append(connection)
        return reply

    def _kept(self) -> Connection | None:
        too_old = asyncio.get_running_loop().time() - MOST_IDLE_S
        while self._idle and (self._idle[0].idle_since < too_old or not self._idle[0].usable):
            self._idle.popleft().close()
        while self._idle:
            if (connection := self._idle.pop()).usable:
                return connection
        return None

    async def _connect(self, give_up_at: float) -> Connection:
        loop = asyncio.get_running_loop()
        host, port, tls = self.address.host, self.address.port, self.address.tls
        opening = loop.create_connection(Connection, host, port, ssl=tls or None)
        try:
            _, connection = await asyncio.wait_for(opening, give_up_at - loop.time())
        except asyncio.TimeoutError:
            raise Broken("no connection in time") from None
        except OSError as error:
            raise Broken(_words(error)) from error
        return connection

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


def _words(error: OSError) -> str:
    """Without the address, which asyncio puts into its text for a refused connection."""
    return "connection refused" if isinstance(error, ConnectionRefusedError) else (error.strerror or str(error)).lower()
