"""Refuses before routing: clients that ignore Retry-After, while the server is busy.

1. a client that waits as it was told to, or was never refused, is not affected;
2. one that does not may fill only a part (`EARLY_MARGIN`) of what others may while there are such, so they find room;
3. its refusals cost neither routing nor reading.
"""

from __future__ import annotations

import math
import re
import time
from functools import partial
from types import SimpleNamespace

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.conduct import Holds
from service.api.lifecycle import Lifecycle
from service.api.requests import Exchange
from service.classify.admission import MARGIN
from service.errors import ServiceError
from service.settings import Settings

# Instead of `classify.admission.MARGIN`, while there are clients that wait as they are told to.
EARLY_MARGIN = 0.65
# Its next request takes a moment to arrive.
ROOM_MARGIN = 0.5
_TIMEOUT = re.compile(rb"(?:^|&)timeout_ms=([0-9]{1,9})(?:&|$)")


class GateMiddleware:
    """Raises Overloaded and DeadlineExceeded, which RequestMiddleware turns into answers."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, settings: Settings, holds: Holds) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._timeout_s = settings.timeout_ms / 1000
        self._holds = holds
        paths = filter(None, ("/classify", "/invocations", settings.vertex_predict_route))
        self._routes = {path: SimpleNamespace(path=path) for path in paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._routes:
            exchange: Exchange = scope["state"]["exchange"]
            if exchange.conduct is not None and exchange.conduct.early:
                self._check(exchange, scope)
        await self._app(scope, receive, send)

    def _check(self, exchange: Exchange, scope: Scope) -> None:
        scope["route"] = self._routes[scope["path"]]  # for the metrics
        found = _TIMEOUT.search(scope["query_string"])
        timeout_s = min(self._timeout_s, int(found[1]) / 1000 if found else math.inf)
        exchange.has_room = partial(self._has_room, timeout_s)
        self._admit(exchange.arrived + timeout_s, EARLY_MARGIN)

    def _has_room(self, timeout_s: float) -> bool:
        try:
            self._admit(time.monotonic() + timeout_s, ROOM_MARGIN)
        except ServiceError:
            return False
        return True

    def _admit(self, deadline: float, margin: float) -> None:
        self._lifecycle.serving().admit(1, 0, deadline, margin)
