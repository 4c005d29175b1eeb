"""The load generator's HTTP/1.1 client: prepared requests over keep-alive connections, one in flight on each.

1. a prepared request is sent unchanged any number of times;
2. any failure to get a complete answer raises Broken, with a short text by which failures can be counted;
3. a connection that the server wants closed, or that has been idle for long, is not reused.

Parsing an answer with h11 takes 40 microseconds (measured). A general HTTP client takes many times as long, and the
generator shares its machine with the server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
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

    def __init__(self, address: Address, target: str, headers: list[tuple[str, str]], body: bytes) -> None:
        host = f"[{address.host}]" if ":" in address.host else address.host
        length = ("Content-Length", str(len(body)))
        self.body = body
        self.head = h11.Request(
            method="POST", target=target, headers=[("Host", f"{host}:{address.port}"), *headers, length]
        )


@dataclass
class Reply:
    """`headers` by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class Connection(asyncio.Protocol):
    """A keep-alive connection with at most one request in flight."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.usable = False
        self._http = h11.Connection(h11.CLIENT)
        self._waiting: asyncio.Future[Reply] | None = None
        self._reply: Reply | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.usable = True

    async def ask(self, request: PreparedRequest, give_up_at: float) -> Reply:
        """Waits for the answer until `give_up_at`, a time of the event loop's clock. Raises Broken."""
        self._waiting = self._loop.create_future()
        self._reply = None
        timer = self._loop.call_at(give_up_at, self._break, "no answer in time")
        try:
            head = self._http.send(request.head) or b""
            self._http.send(h11.Data(data=request.body))
            self._http.send(h11.EndOfMessage())
            self._transport.write(head + request.body)  # in one write, so that the server wakes up only once
            return await self._waiting
        finally:
            timer.cancel()
            if self._http.our_state is not h11.IDLE:  # cancelled, or the answer is incomplete
                self.close()

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._read()

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if error is None:
            self._http.receive_data(b"")  # ends an answer without a length
            self._read()
        self._break("connection reset" if error else "connection closed")

    def _read(self) -> None:
        try:
            while (event := self._http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                self._take(event)
                if isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                    return
        except h11.RemoteProtocolError:
            self._break("connection closed" if self._http.trailing_data[1] else "not HTTP/1.1")

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Response):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            self._reply = Reply(event.status_code, headers)
        elif isinstance(event, h11.Data) and self._reply:
            self._reply.body += event.data
        elif isinstance(event, h11.EndOfMessage):
            self._finish()

    def _finish(self) -> None:
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self.idle_since = self._loop.time()
        if self._waiting and self._reply and not self._waiting.done():
            self._waiting.set_result(self._reply)

    def _break(self, why: str) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(Broken(why))

    def close(self) -> None:
        self.usable = False
        self._transport.abort()


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
