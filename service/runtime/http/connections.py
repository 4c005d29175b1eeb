"""One connection: when it is read, and how long each of its states may last.

1. a head that does not arrive in time is answered 408, one that is too large 431, one that is not HTTP 400, and the
   connection is closed;
2. every state has a timer that ends it: waiting for a request, its head, the application, an answer that is not read,
   the rest of an unwanted body, the client's end after ours;
3. an answer that is sent before the body is read arrives: the rest is read and discarded, and a connection that is to
   be closed is closed for writing first; both within bounds;
4. when connections run out, those that only linger are closed, then the one that has been idle for longest;
5. a connection whose client no longer responds is found by TCP (`runtime.listener`).
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

from starlette.types import ASGIApp, Scope

from service.api.conduct import Addresses, Conduct
from service.api.problems import Fault, problem_response
from service.runtime.http.bodies import Body, body_of
from service.runtime.http.calls import STATUS_LINES, Call, scope_of
from service.runtime.http.heads import Head, Malformed, TooLarge, take_head
from service.runtime.http.turns import Turns

# The application has deadlines of its own; this is for its bugs.
CALL_S = 3600.0
LINGER_SILENT_S = 5.0
# Files that are not connections.
OTHER_FILES = 500
RETRY_WITHOUT_ROOM_S = 1.0


def most_connections() -> int:
    """The number of open files allowed, less some to spare; at least half of it."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(files // 2, files - OTHER_FILES)


@dataclass
class Connections:
    """All of this process, and what they share. `head_s`: time for a head from its first byte on; for the body see
    `api.reading.uploads`. `most_discarded_bytes`: of an unwanted body.

    `lingering` and `idle` have no request in the application; the oldest come first.
    """

    app: ASGIApp
    head_s: float
    most_discarded_bytes: int
    # Longer than the 60 s of common proxies: the side that closes idle connections first never gets a reset.
    keep_alive_s: float = 75.0
    # How long a client may go on sending after its answer, and how long it may be silent meanwhile. Closing with unread
    # bytes would reset the connection, and the answer might be lost. nginx does the same (lingering_time,
    # lingering_timeout).
    linger_s: float = 30.0
    linger_silent_s: float = LINGER_SILENT_S
    app_state: dict[str, Any] = field(default_factory=dict)
    common_headers: Callable[[], list[tuple[bytes, bytes]]] = list
    addresses: Addresses = field(default_factory=Addresses)
    turns: Turns = field(default_factory=Turns)
    note_refusal: Callable[[str], None] = lambda code: None  # of a connection, by problem code
    open: set[Any] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    lingering: dict[Connection, None] = field(default_factory=dict)
    idle: dict[Connection, None] = field(default_factory=dict)

    def make_room(self) -> bool:
        """Closes a connection that has no request in the application, if there is one."""
        for useless in (self.lingering, self.idle):
            if oldest := next(iter(useless), None):
                del useless[oldest]
                oldest.abort()
                return True
        return False


class Connection(asyncio.Protocol):
    def __init__(self, connections: Connections) -> None:
        self.write_paused = False
        self._all = connections
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._arrived = self._received = 0.0  # the first byte in the buffer, and the last
        self._call: Call | None = None  # until it is answered
        self._body: Body | None = None  # until it is read
        self._lingers = False
        self._discarded = 0
        self._heard = False
        self._give_up_at = 0.0
        self._conduct = Conduct()
        self._reading = True
        self._writable = asyncio.Event()
        self._unsent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._due = 0.0
        self._on_due: Callable[[], None] = self.abort

    # Timers

    def _due_in(self, seconds: float, action: Callable[[], None]) -> None:
        """Replaces what was due. The event loop's timer is only ever set to an earlier time, so few requests set it."""
        self._due, self._on_due = time.monotonic() + seconds, action
        if self._timer is None or self._timer_at > self._due:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._due
        self._timer = self._loop.call_later(max(0.0, self._due - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if time.monotonic() < self._due - 0.002:  # uvloop's clock has milliseconds
            self._set_timer()
        else:
            self._on_due()

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._all.open.add(self)
        client = _address(transport, "peername")
        self._address = {"client": client, "server": _address(transport, "sockname")}
        if client is not None:
            self._conduct.address = self._all.addresses.get(client[0])
        self._wait_for_request()
        if len(self._all.open) > most_connections():
            del self._all.idle[self]
            if not self._all.make_room():
                detail = f"all {len(self._all.open) - 1} connections are busy"
                self._refuse(Fault("overloaded", detail, RETRY_WITHOUT_ROOM_S))
                return
            self._all.idle[self] = None

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            self._discard(len(data))
            return
        self._received = time.monotonic()
        if not self._buffer:
            self._arrived = self._received
        self._buffer += data
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.open.discard(self)
        self._all.idle.pop(self, None)
        self._all.lingering.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
        self._writable.set()
        if self._call is not None:
            self._call.disconnect()
        self._conduct.leave()

    def pause_writing(self) -> None:
        self.write_paused = True
        self._writable.clear()
        self._unsent = self._transport.get_write_buffer_size()
        self._watch_call()

    def resume_writing(self) -> None:
        self.write_paused = False
        self._writable.set()
        if self._call is not None:
            self._watch_call()

    def _watch_call(self) -> None:
        if self.write_paused:
            self._due_in(self._all.keep_alive_s, self._check_that_answers_are_read)
        else:
            self._due_in(CALL_S, self.abort)

    # Requests

    def _advance(self) -> None:
        """Take complete parts from the buffer, and set the timer of the resulting state."""
        try:
            while self._buffer and not self._lingers:
                if self._body is not None:
                    if not self._take_body(self._body):
                        return
                elif self._call is not None:
                    self.pause_reading()  # until it is answered
                    return
                elif not self._take_request():
                    return
        except Malformed:
            self._refuse(Fault("malformed_request", "this is not HTTP/1.1 as RFC 9112 has it"))
        except TooLarge:
            self._refuse(Fault("headers_too_large", "the request's line and headers are too long"))

    def _take_request(self) -> bool:
        """Is there a complete head?"""
        head = take_head(self._buffer)
        if head is None:
            if self._buffer and self._on_due != self._refuse_late:
                self._due_in(self._all.head_s, self._refuse_late)
            return False
        self._begin(head)
        return True

    def _begin(self, head: Head) -> None:
        self._all.idle.pop(self, None)
        self._watch_call()
        self._body = body_of(head.length)
        self._call = call = Call(head, self, self._all.common_headers())
        state = {
            **self._all.app_state,
            "arrived": self._arrived,
            "received": self._received,
            "conduct": self._conduct,
            "call": call,
        }
        task = self._loop.create_task(self._run(call, scope_of(head, state=state, **self._address)))
        self._all.tasks.add(task)
        task.add_done_callback(self._all.tasks.discard)

    async def _run(self, call: Call, scope: Scope) -> None:
        await self._all.turns.take()
        await call.run(self._all.app, scope)

    def _take_body(self, body: Body) -> bool:
        """Is it over?"""
        before = len(self._buffer)
        piece = body.take(self._buffer)
        if body.ended:
            self._body = None
        if self._call is not None:
            self._call.feed(piece, body.ended)
        else:
            self._discard(before - len(self._buffer))
            if body.ended and not self._lingers:
                self._all.lingering.pop(self, None)
                self._wait_for_request()
        if not body.ended and self._buffer and len(self._buffer) < before:
            self.pause_reading()
            self._loop.call_soon(self._go_on)  # other connections have their turn
        return body.ended

    def _go_on(self) -> None:
        if not self._transport.is_closing() and not self._lingers:
            self.resume_reading()
            self._advance()

    def answered(self) -> None:
        """The call has sent the last byte of its answer."""
        call, self._call = self._call, None
        assert call is not None
        if self._transport.is_closing():
            return
        if not call.keep_alive or (call.must_continue and self._body is not None):
            self._linger()
        elif self._body is not None:
            self._discarded = 0
            self._all.lingering[self] = None
            self._due_in(self._all.linger_silent_s, self._check_that_rest_arrives)
            self._give_up_at = time.monotonic() + self._all.linger_s
            self.resume_reading()
        else:
            self._wait_for_request()
            self.resume_reading()
            self._received = time.monotonic()  # of a pipelined request, which was not ready before
            self._advance()

    def _wait_for_request(self) -> None:
        self._all.idle[self] = None
        self._due_in(self._all.keep_alive_s, self._linger)

    # Ends

    def _refuse_late(self) -> None:
        detail = f"the head of the request did not arrive within {self._all.head_s:g} s"
        self._refuse(Fault("request_timeout", detail))

    def _refuse(self, fault: Fault) -> None:
        """Answer without the application, unless it is answering already, and close."""
        if self._call is not None and not self._call.ended and self._call.begun:
            self._linger()
            return
        self._all.note_refusal(fault.code)
        request_id = uuid.uuid4().hex
        reply = problem_response(fault, instance="", request_id=request_id)
        headers = [*reply.raw_headers, (b"x-request-id", request_id.encode()), (b"connection", b"close")]
        lines = [STATUS_LINES[HTTPStatus(reply.status_code)], *(b"%b: %b\r\n" % header for header in headers)]
        self._transport.write(b"".join([*lines, b"\r\n", bytes(reply.body)]))
        self._linger()

    def _linger(self) -> None:
        """Send no more; discard what still arrives, for a short time."""
        if self._transport.is_closing():
            return
        self._lingers = True
        self._discarded = 0
        self._buffer.clear()
        self._all.idle.pop(self, None)
        self._all.lingering[self] = None
        if self._call is not None:
            self._call.disconnect()  # for the application
            self._call = None
        self._transport.write_eof()
        self._give_up_at = time.monotonic() + self._all.linger_s
        self._unsent = self._transport.get_write_buffer_size()
        self._due_in(self._all.linger_silent_s, self._check_that_rest_arrives)
        self.resume_reading()

    def _discard(self, size: int) -> None:
        self._discarded += size
        self._heard = True
        if self._discarded > self._all.most_discarded_bytes:
            self.abort()

    def _check_that_rest_arrives(self) -> None:
        unsent = self._transport.get_write_buffer_size()
        moves = self._heard or unsent < self._unsent
        self._heard, self._unsent = False, unsent
        if moves and time.monotonic() < self._give_up_at:
            self._due_in(self._all.linger_silent_s, self._check_that_rest_arrives)
        else:
            self.abort()

    def _check_that_answers_are_read(self) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent >= self._unsent:
            self.abort()
            return
        self._unsent = unsent
        self._due_in(self._all.keep_alive_s, self._check_that_answers_are_read)

    def shutdown(self) -> None:
        """The server is shutting down: close after the answer in progress."""
        if self._call is not None:
            self._call.keep_alive = False
            self._conduct.release()
        elif self._lingers:
            self.abort()
        else:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    # For the call

    def write(self, content: bytes) -> None:
        self._transport.write(content)

    async def drain(self) -> None:
        await self._writable.wait()

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()


def _address(transport: asyncio.BaseTransport, name: str) -> tuple[str, int] | None:
    found = transport.get_extra_info(name)
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None
