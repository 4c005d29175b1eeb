"""What a connection may cost, and HTTP/1.1 as clients really speak it, on top of uvicorn and h11.

1. a head that does not arrive in time is answered 408, one that is too large 431, one that is not HTTP 400, and the
   connection is closed;
2. an idle connection is closed, and one whose client does not read its answers is cut off;
3. a client that is answered while it is still sending may send the rest, which is discarded, but not for long;
4. when connections run out, the one that has been idle for longest is closed;
5. empty lines before a request are skipped, and a target may be a whole URL (RFC 9112, 2.2 and 3.2.2);
6. a request with both Content-Length and Transfer-Encoding is the last one of its connection (RFC 9112, 6.3).
"""

from __future__ import annotations

import asyncio
import re
import resource
import sys
import uuid
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol, RequestResponseCycle

from service.api.problems import Fault, problem_response

# How long a client that was answered may go on sending. Closing with unread bytes would reset the connection, and the
# answer might be lost.
LINGER_S = 5.0
# Files that are not connections, and connections that the event loop accepts before it checks whether there is room.
OTHER_FILES = 500
RETRY_WITHOUT_ROOM_S = 1.0


_LINE_ENDS = (b"\r", b"\n")
_SCHEME_AND_HOST = re.compile(rb"^https?://[^/?#]*/?", re.IGNORECASE)


def most_connections() -> int:
    """The number of open files allowed, less some to spare; at least half of it."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(files // 2, files - OTHER_FILES)


class Requests(h11.Connection):
    """h11's, which is stricter than RFC 9112 in what it takes for a request."""

    def next_event(self) -> Any:
        if self.their_state in (h11.IDLE, h11.DONE):
            self._skip_empty_lines()
        event = super().next_event()
        return _normalized(event) if isinstance(event, h11.Request) else event

    def _skip_empty_lines(self) -> None:
        """Some clients send a line end after the body of a POST, which belongs to nothing."""
        received = self._receive_buffer._data
        if received[:1] in _LINE_ENDS:
            self._receive_buffer.maybe_extract_at_most(len(received) - len(received.lstrip(b"\r\n")))


def _normalized(request: h11.Request) -> h11.Request:
    """Its target without scheme and host, and `Connection: close` if it has two lengths."""
    names = {name for name, _ in request.headers}
    has_two_lengths = {b"content-length", b"transfer-encoding"} <= names
    if request.target.startswith(b"/") and not has_two_lengths:
        return request
    target = _SCHEME_AND_HOST.sub(b"/", request.target)
    headers = [*request.headers, (b"connection", b"close")] if has_two_lengths else request.headers
    return h11.Request(method=request.method, target=target, headers=headers, http_version=request.http_version)


class Connection(H11Protocol):
    """uvicorn's, for clients that break the rules. `head_s`: time for a request's head from its first byte on; for
    the body see `api.reading.uploads`."""

    # All of the process, because they share its files: the idle ones, the one that has been idle for longest first.
    idle: dict[Connection, None] = {}  # noqa: RUF012  # meant to be shared

    def __init__(self, *args: Any, head_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = Requests(h11.SERVER)
        self._head_s = head_s
        self._cut_off: asyncio.TimerHandle | None = None
        self._late: asyncio.TimerHandle | None = None
        self._discarding: asyncio.TimerHandle | None = None
        self._answered: RequestResponseCycle | None = None  # while its body still comes
        self._lingers = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > most_connections() and not self._make_room():
            detail = f"all {len(self.connections) - 1} connections are busy"
            self._refuse(Fault("overloaded", detail, RETRY_WITHOUT_ROOM_S))
            return
        self.idle[self] = None
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _make_room(self) -> bool:
        oldest = next(iter(self.idle), None)
        if oldest is None:
            return False
        del self.idle[oldest]
        oldest.transport.abort()
        return True

    def data_received(self, data: bytes) -> None:
        if self._lingers or self._is_empty_lines(data):
            return
        super().data_received(data)
        # The rest of a discarded body may come together with the next request, which then sends its own.
        if self._discarding is not None and (
            self.cycle is not self._answered or self.conn.their_state is not h11.SEND_BODY
        ):
            self._discarding.cancel()
            self._discarding = None
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._late = self._late or self.loop.call_later(self._head_s, self._refuse_late)
        else:
            self._stop_waiting_for_head()

    def _is_empty_lines(self, data: bytes) -> bool:
        """Between two requests. They are no request yet: the connection stays as idle as it was."""
        return (
            data[:1] in _LINE_ENDS
            and not data.strip(b"\r\n")
            and self.conn.their_state in (h11.IDLE, h11.DONE)
            and not self.conn.trailing_data[0]
        )

    def _stop_waiting_for_head(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self.conn.their_state is not h11.IDLE:
            self.idle.pop(self, None)

    def _refuse_late(self) -> None:
        self._refuse(Fault("request_timeout", f"the head of the request did not arrive within {self._head_s:g} s"))

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls it when h11 has raised."""
        too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if getattr(sys.exc_info()[1], "error_status_hint", None) == too_large:
            self._refuse(Fault("headers_too_large", "the request's line and headers are too long"))
        else:
            self._refuse(Fault("malformed_request", "this is not HTTP/1.1 as RFC 9112 has it"))

    def _refuse(self, fault: Fault) -> None:
        """Answer without the application, and close."""
        request_id = uuid.uuid4().hex
        reply = problem_response(fault, instance="", request_id=request_id)
        headers = [*reply.raw_headers, (b"x-request-id", request_id.encode()), (b"connection", b"close")]
        head = h11.Response(status_code=reply.status_code, headers=headers, reason=STATUS_PHRASES[reply.status_code])
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else an answer is being sent already
            for event in (head, h11.Data(data=bytes(reply.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self._linger()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:
            self.idle[self] = None
        elif self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE:
            self._answered = self.cycle
            self._discarding = self.loop.call_later(LINGER_S, self.transport.abort)

    def _linger(self) -> None:
        """Send no more; discard what still arrives, but not for long."""
        self._lingers = True
        self.idle.pop(self, None)
        if (
            self.cycle is not None and not self.cycle.response_complete
        ):  # to the application, the client has disconnected
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._unset_keepalive_if_required()
        self.transport.write_eof()
        self.flow.resume_reading()
        self._cut_off_in(LINGER_S)

    def _cut_off_in(self, seconds: float) -> None:
        if self._cut_off is None:
            self._cut_off = self.loop.call_later(seconds, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._cut_off_in(self.timeout_keep_alive)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._cut_off is not None and not self._lingers:
            self._cut_off.cancel()
            self._cut_off = None

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._cut_off_in(LINGER_S)  # a client that has not read the end by then is not reading

    def shutdown(self) -> None:
        if self._lingers:
            self.transport.abort()
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self.idle.pop(self, None)
        for timer in (self._cut_off, self._late, self._discarding):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
