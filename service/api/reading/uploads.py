"""How long a body may take to arrive, and until when its request must be answered.

1. a client that keeps sending is not cut off by the deadline of the work: `timeout_ms` counts from the last byte;
2. the whole upload has `upload_timeout_ms`, and may be slower than `upload_min_bytes_per_second` for GRACE_S at most;
3. the client's own deadline counts from the arrival of its request, upload included;
4. when the server drains, all of this ends after `timeout_ms`;
5. the bodies that arrive count against `max_queue_bytes`: one that does not fit is rejected by its Content-Length, or
   when it has grown too large.

All times are those of `time.monotonic`, which is also the clock of the event loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from starlette.requests import Request
from starlette.types import Message

from service.api.problems import RequestError
from service.api.requests import Exchange
from service.classify.memory import Memory
from service.errors import DeadlineExceeded, Draining
from service.settings import Settings

T = TypeVar("T")

# A client may stall this long, such as a phone that changes cells.
GRACE_S = 10.0
RETRY_WHILE_DRAINING_S = 1.0


class Uploads:
    def __init__(self, settings: Settings, memory: Memory | None = None, *, grace_s: float = GRACE_S) -> None:
        """`memory`: the account of the process."""
        self._memory = memory or Memory(settings.max_queue_bytes)
        self._timeout_s = settings.timeout_ms / 1000
        self._upload_timeout_s = settings.upload_timeout_ms / 1000
        self._min_rate = settings.upload_min_bytes_per_second
        self._max_body_bytes = settings.max_body_bytes
        self._grace_s = grace_s
        self._arriving: set[anyio.CancelScope] = set()
        self._end_at = math.inf  # of the requests that arrived before the server drained

    async def read(
        self, request: Request, reader: Callable[[Request], Awaitable[T]], client_timeout_s: float | None = None
    ) -> T:
        """Await `reader`. Raises DeadlineExceeded for the client's deadline, RequestError `upload_timeout` for ours,
        Overloaded for lack of memory, and Draining."""
        exchange = Exchange.of(request)
        latest = min(self._latest(exchange, client_timeout_s), exchange.arrived + self._upload_timeout_s)
        stalled_at = exchange.arrived + self._grace_s
        scope = anyio.CancelScope(deadline=min(latest, stalled_at))
        held_bytes = 0

        async def receive() -> Message:
            nonlocal stalled_at, held_bytes
            message = await request.receive()
            size = len(message.get("body", b""))
            self._memory.check(size, held_bytes)
            self._memory.take(size)
            held_bytes += size
            if message.get("more_body"):
                stalled_at = min(stalled_at + size / self._min_rate, time.monotonic() + self._grace_s)
                scope.deadline = min(latest, self._drained_at(exchange), stalled_at)
            return message

        self._memory.check(self._announced(request))
        self._arriving.add(scope)
        try:
            with scope:
                body = await reader(Request(request.scope, receive))
                exchange.note_read()
                return body
        finally:
            self._arriving.discard(scope)
            self._memory.give_back(held_bytes)
        raise self._too_late(exchange, client_timeout_s)

    def _announced(self, request: Request) -> int:
        """Bytes. The reader rejects more than the limit."""
        length = request.headers.get("content-length", "")
        return min(int(length), self._max_body_bytes) if length.isdecimal() else 0

    def deadline(self, exchange: Exchange, client_timeout_s: float | None) -> float:
        """For the work, once the body is read."""
        return min(time.monotonic() + self._timeout_s, self._latest(exchange, client_timeout_s))

    def earliest_deadline(self, exchange: Exchange, client_timeout_s: float | None = None) -> float:
        """What is known about the deadline before the body is read: as if it took no time."""
        return min(exchange.arrived + self._timeout_s, self._latest(exchange, client_timeout_s))

    def drain(self) -> None:
        """From now on every request has `timeout_ms` at most, upload included."""
        self._end_at = time.monotonic() + self._timeout_s
        for scope in self._arriving:
            scope.deadline = min(scope.deadline, self._end_at)

    def _drained_at(self, exchange: Exchange) -> float:
        return max(self._end_at, exchange.arrived + self._timeout_s)

    def _latest(self, exchange: Exchange, client_timeout_s: float | None) -> float:
        client_s = math.inf if client_timeout_s is None else client_timeout_s
        return min(exchange.arrived + client_s, self._drained_at(exchange))

    def _too_late(self, exchange: Exchange, client_timeout_s: float | None) -> Exception:
        elapsed_s = exchange.elapsed_s()
        if client_timeout_s is not None and elapsed_s >= client_timeout_s:
            return DeadlineExceeded(f"the body did not arrive within the deadline of {client_timeout_s * 1000:g} ms")
        if elapsed_s >= self._upload_timeout_s:
            return _timeout(f"the body did not arrive within {self._upload_timeout_s:g} s, the limit")
        if time.monotonic() >= self._drained_at(exchange):
            return Draining("the server is shutting down", RETRY_WHILE_DRAINING_S)
        return _timeout(
            f"the body arrives too slowly: over {self._grace_s:g} s, at least {self._min_rate} bytes/s are expected"
        )


def _timeout(detail: str) -> RequestError:
    return RequestError("upload_timeout", detail)
