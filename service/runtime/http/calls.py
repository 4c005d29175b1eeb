"""One request in the application, and its answer: ASGI on one side, bytes on the other.

1. the body is passed on as it arrives, and read no faster than the application takes it;
2. the head and the first piece of an answer are sent in one write;
3. an answer ends as its head says: by its length, by its last chunk, or with the connection;
4. errors that the application raises are logged, and answered 500 if no answer has begun.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

from service.runtime.http.heads import Head

STATUS_LINES = {status: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
# Bytes of a body that the application has not taken yet; beyond this the connection is not read.
MOST_UNTAKEN_BYTES = 64 << 10
NO_CONTENT = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

log = logging.getLogger(__name__)


class Line(Protocol):
    """What a call needs from its connection."""

    write_paused: bool

    def write(self, content: bytes) -> None: ...
    async def drain(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def answered(self) -> None: ...
    def abort(self) -> None: ...


def scope_of(head: Head, **more: object) -> Scope:
    raw_path, _, query = head.target.partition(b"?")
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": head.version,
        "scheme": "http",
        "method": head.method,
        "root_path": "",
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "headers": head.headers,
        **more,
    }


class Call:
    """`keep_alive`: may another request follow on this connection? `on_leave`: called when the client leaves before its
    answer is complete."""

    def __init__(self, head: Head, line: Line, common_headers: list[tuple[bytes, bytes]]) -> None:
        self.keep_alive = not head.close
        self.disconnected = False
        self.ended = False
        self.on_leave: Callable[[], object] | None = None
        self.must_continue = head.expects_continue and head.length != 0
        self._line = line
        self._without_body = head.method == "HEAD"
        self._is_old = head.version == "1.0"
        self._common_headers = common_headers
        self._pieces: list[bytes] = []
        self._untaken = 0
        self._more_body = head.length != 0
        self._end_told = False
        self._news = asyncio.Event()
        self._start: Message | None = None
        self.begun = False
        self._chunked = False
        self._left: int | None = None  # of a body with a length

    # From the connection

    def feed(self, piece: bytes, ended: bool) -> None:
        if piece:
            self._pieces.append(piece)
            self._untaken += len(piece)
            if self._untaken > MOST_UNTAKEN_BYTES:
                self._line.pause_reading()
        self._more_body = not ended
        self._news.set()

    def disconnect(self) -> None:
        self.disconnected = True
        self._news.set()
        if self.on_leave is not None:
            self.on_leave()

    # From the application

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._line.abort()
            raise
        except Exception:
            log.exception("the application failed")
        if not self.ended and not self.disconnected:
            await self._give_up()

    async def _give_up(self) -> None:
        self.keep_alive = False
        if self.begun:
            self._line.abort()
            return
        self._start = self._left = None
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": b"Internal Server Error"})

    async def receive(self) -> Message:
        if self.must_continue and self._start is None and not self.disconnected:
            self.must_continue = False
            self._line.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.disconnected or self.ended or self._pieces or self._is_at_end):
            self._line.resume_reading()
            self._news.clear()
            await self._news.wait()
        if self.disconnected or self.ended:
            return {"type": "http.disconnect"}
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._untaken = 0
        self._end_told = not self._more_body
        return {"type": "http.request", "body": body, "more_body": self._more_body}

    @property
    def _is_at_end(self) -> bool:
        return not self._more_body and not self._end_told

    async def send(self, message: Message) -> None:
        if self._line.write_paused and not self.disconnected:
            await self._line.drain()
        if self.disconnected:
            return
        if self.ended:
            raise RuntimeError(f"{message['type']} after the end of the answer")
        if message["type"] == "http.response.start" and self._start is None:
            self._start = message
        elif message["type"] == "http.response.body" and self._start is not None:
            self._send_body(self._start, message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} is not expected here")

    def _send_body(self, start: Message, body: bytes, more: bool) -> None:
        head = b""
        if not self.begun:
            head = self._head(start, None if more else len(body))
            self.begun = True
        if self._without_body:
            self._line.write(head)
        else:
            self._line.write(head + self._framed(body, more))
        if not more:
            self.ended = True
            self._news.set()
            self._line.answered()

    def _framed(self, body: bytes, more: bool) -> bytes:
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                self.keep_alive = False
                raise RuntimeError("the body of the answer does not have the length in its head")
        if not self._chunked:
            return body
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return chunk if more else chunk + b"0\r\n\r\n"

    def _head(self, start: Message, length: int | None) -> bytes:
        """`length`: of the whole body, if it is known."""
        status = HTTPStatus(start["status"])
        lines = [STATUS_LINES[status]]
        for name, value in (*self._common_headers, *start.get("headers", ())):
            if name == b"content-length":
                self._left = int(value)
            elif name == b"connection":
                self.keep_alive = self.keep_alive and value.lower() != b"close"
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        lines += self._framing(status, length)
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            raise RuntimeError("a header of the answer contains a line break")
        return head + b"\r\n"

    def _framing(self, status: HTTPStatus, length: int | None) -> list[bytes]:
        if status in NO_CONTENT:
            self._without_body = True
            return []
        if self._left is not None:
            return []
        if length is not None:
            return [b"content-length: %d\r\n" % length]
        if self._is_old:
            self.keep_alive = False
            return []
        self._chunked = True
        return [b"transfer-encoding: chunked\r\n"]
