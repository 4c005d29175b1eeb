"""Refuses before routing: clients that ignore Retry-After, while the server is busy.

1. a client that waits as told, or was never refused, is not affected;
2. one that does not wait may fill only a part (`EARLY_MARGIN`) of what the others may, so they find room;
3. its refusals cost neither routing nor reading.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.lifecycle import Lifecycle
from service.api.requests import Exchange
from service.errors import Overloaded, ServiceError
from service.settings import Settings

# Instead of `classify.admission.MARGIN`. It grows while such requests are answered well within their deadlines, which
# is so while they wait for the event loop only, and shrinks with each that is not: to stay, 4 % may be late.
EARLY_MARGIN, MOST_EARLY_MARGIN = 0.5, 0.75
GROWTH, SHRINKING = 0.0004, 0.01
# After a client that waits has been refused again, the margin of the others does not grow for so long.
ROOM_FOR_S = 3.0
# An answer that takes a larger share of the time is late: it still has to reach the client.
IN_TIME_SHARE = 0.9
# The share of the margin below which a client is told to ask again: its request takes a moment to arrive.
ROOM_SHARE = 0.8
_INFER = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer")
_TIMEOUT = re.compile(rb"(?:^|&)timeout_ms=([0-9]{1,9})(?:&|$)")


class GateMiddleware:
    """Raises Overloaded and DeadlineExceeded, which RequestMiddleware turns into answers."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, settings: Settings) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._timeout_s = settings.timeout_ms / 1000
        self._margin = EARLY_MARGIN
        self._grows_from = 0.0
        self._paths = frozenset({"/classify", "/invocations", settings.vertex_predict_route})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and (route := self._route(scope["path"])):
            exchange: Exchange = scope["state"]["exchange"]
            if exchange.conduct is not None and exchange.conduct.waited and not exchange.conduct.early:
                with self._making_room():
                    return await self._app(scope, receive, send)
            if exchange.conduct is not None and exchange.conduct.early:
                scope["route"] = SimpleNamespace(path=route)  # for the metrics
                timeout_s = self._check(exchange, scope)
                with self._learning(exchange, timeout_s):
                    return await self._app(scope, receive, send)
        return await self._app(scope, receive, send)

    def _route(self, path: str) -> str | None:
        """Its template, if images are classified there."""
        if path in self._paths:
            return path
        found = _INFER.fullmatch(path)
        return found and f"/v2/models/{{name}}{'/versions/{version}' if found[1] else ''}/infer"

    def _check(self, exchange: Exchange, scope: Scope) -> float:
        """-> its deadline, seconds from its arrival."""
        found = _TIMEOUT.search(scope["query_string"])
        timeout_s = min(self._timeout_s, int(found[1]) / 1000 if found else math.inf)
        exchange.has_room = partial(self._has_room, timeout_s)
        self._admit(exchange.arrived + timeout_s, self._margin)
        return timeout_s

    @contextmanager
    def _learning(self, exchange: Exchange, timeout_s: float) -> Iterator[None]:
        in_time = False
        try:
            yield
            in_time = exchange.elapsed_s() < IN_TIME_SHARE * timeout_s
        finally:
            grows = in_time and time.monotonic() >= self._grows_from
            changed = self._margin + (GROWTH if grows else -SHRINKING * (not in_time))
            self._margin = min(MOST_EARLY_MARGIN, max(EARLY_MARGIN, changed))

    @contextmanager
    def _making_room(self) -> Iterator[None]:
        """For a client that has waited: if it is refused again, the others get less for a while."""
        try:
            yield
        except Overloaded:
            self._margin, self._grows_from = EARLY_MARGIN, time.monotonic() + ROOM_FOR_S
            raise

    def _has_room(self, timeout_s: float) -> bool:
        try:
            self._admit(time.monotonic() + timeout_s, ROOM_SHARE * self._margin)
        except ServiceError:
            return False
        return True

    def _admit(self, deadline: float, margin: float) -> None:
        self._lifecycle.serving().admit(deadline, margin)
