"""What every request gets, on every route: an id, stage timings, a log line, metrics.

1. every reply carries `X-Request-ID` and `Server-Timing`;
2. an unexpected exception is answered 500 and logged once, with its traceback and the request's id;
3. a client that disconnects stops its work: nothing is sent, and the log says 499;
4. HEAD is answered wherever GET is, with the same headers; the server sends no body;
5. with tracing, a request's trace id is in its log lines, in the exemplar of its duration and in its reply.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.conduct import Conduct, Holds
from service.api.problems import Fault, fault_of, problem_response
from service.classify.classifier import Classifier
from service.classify.outcomes import Image, Outcome
from service.observe.metrics import Metrics
from service.observe.objective import CLIENT_LEFT, Work

if TYPE_CHECKING:
    from service.observe.tracing import RequestTrace, Tracing

T = TypeVar("T")
# Told about the answers of a request: its id, the classifier, the images, and the outcome of each.
Follower = Callable[[str, Classifier, Sequence[Image], Sequence[Outcome]], None]

# Probes and scrapes come every few seconds; they are logged only when they fail, or at level debug.
QUIET_ROUTES = frozenset(
    {"/livez", "/healthz", "/readyz", "/startupz", "/metrics", "/ping", "/v2/health/live", "/v2/health/ready"}
)
# Matches a path as well as a route's template.
_MODEL_READY = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/ready")
# problem code -> reason in repvgg_requests_rejected_total
REJECTIONS = {
    "overloaded": "overload",
    "deadline_exceeded": "deadline",
    "draining": "draining",
    "upload_timeout": "limit",
    "body_too_large": "limit",
    "too_many_images": "limit",
    "too_many_pixels": "limit",
}

# problem code of a reload -> reason in repvgg_reloads_refused_total
RELOAD_ROUTE = "/models/reload"
REFUSED_RELOADS = {"reload_running": "running", "forbidden": "forbidden"}

# A service that has answered nobody for this long is not just busy.
ANSWERS_S = 10.0

# Codes that may come in floods.
REFUSALS = frozenset({"overloaded", "deadline_exceeded"})

# An exemplar, which carries the id, may have 128 characters with its name.
_GIVEN_ID = re.compile(r"[\x21-\x7e]{1,100}")

log = logging.getLogger(__name__)
access_log = logging.getLogger("service.access")


class Unlogged:
    """Only the first refusal of each second is logged, with the number of unlogged ones before it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second = -1
        self._count = 0

    def is_first(self) -> bool:
        """The first in this second? Counts the others."""
        second = int(self._clock())
        if second == self._second:
            self._count += 1
            return False
        self._second = second
        return True

    def fields(self, exchange: Exchange) -> dict[str, Any]:
        if exchange.code not in REFUSALS or not self._count:
            return {}
        count, self._count = self._count, 0
        return {"more_refusals": count}


@dataclass
class Exchange:
    """One request and its reply. `stages`: what happened so far, seconds; `arrived`: the clock at its arrival."""

    request_id: str
    path: str
    arrived: float
    clock: Callable[[], float]
    trace: RequestTrace | None = None
    conduct: Conduct | None = None
    has_room: Callable[[], bool] = lambda: False  # for a request like this one
    stages: dict[str, float] = field(default_factory=dict)
    batch_size: int | None = None
    images: int | None = None
    limit_s: float | None = None  # the deadline of a request to classify; None for others
    objective_s: float = 0.1
    promises: float = 1.0  # as in observe.objective
    followers: Sequence[Follower] = ()
    failed_images: Counter[str] = field(default_factory=Counter)  # by problem code
    code: str | None = None
    status: int | None = None
    answered: float | None = None

    @classmethod
    def begin(cls, scope: Scope, clock: Callable[[], float], tracing: Tracing | None) -> Exchange:
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
        trace = tracing.start(scope["method"], scope["path"], scope["headers"]) if tracing else None
        state = scope.get("state", {})
        return cls(
            request_id, scope["path"], state.get("arrived") or clock(), clock, trace, conduct=state.get("conduct")
        )

    @classmethod
    def of(cls, request: Request) -> Exchange:
        exchange: Exchange = request.scope["state"]["exchange"]
        return exchange

    @property
    def ids(self) -> dict[str, str]:
        return {"request_id": self.request_id} | ({"trace_id": self.trace.trace_id} if self.trace else {})

    @property
    def exemplar(self) -> dict[str, str]:
        """One id only, because both together may be too long for an exemplar; the log has both."""
        return {"trace_id": self.trace.trace_id} if self.trace else {"request_id": self.request_id}

    def elapsed_s(self) -> float:
        return self.clock() - self.arrived

    def expect_answer_within(self, limit_s: float | None) -> None:
        """The earliest of these counts; None is none."""
        if limit_s is not None:
            self.limit_s = min(limit_s, self.limit_s or limit_s)

    def worked_s(self) -> float:
        """Since its body was read."""
        return self.elapsed_s() - self.stages.get("read", 0.0)

    def work(self, status: int, *, others_are_answered: bool) -> Work:
        codes = {*self.failed_images, *([self.code] if self.code else ())}
        early = self.conduct is not None and self.conduct.early > 0 and others_are_answered
        return Work(status, codes, self.elapsed_s(), self.stages.get("read"), self.limit_s or 0.0, self.promises, early)

    def note_read(self) -> None:
        """The body is read."""
        self.stages["read"] = self.elapsed_s()
        if self.trace:
            self.trace.stage("read", self.arrived, self.stages["read"])

    def server_timing(self) -> str:
        """`read;dur=0.4, decode;dur=2.1, queue;dur=0.1, infer;dur=9.8;desc="batch=4", total;dur=12.6` (milliseconds)"""
        details = {} if self.batch_size is None else {"infer": f';desc="batch={self.batch_size}"'}
        stages = self.stages | {"total": self.elapsed_s()}
        return ", ".join(f"{name};dur={seconds * 1000:.3f}{details.get(name, '')}" for name, seconds in stages.items())

    def problem(self, fault: Fault, **more: Any) -> Response:
        self.code = fault.code
        return problem_response(fault, instance=quote(self.path), request_id=self.request_id, **more)


def is_quiet(path: str, vertex_health_route: str = "") -> bool:
    """Is it a probe or a scrape, by its path or its route's template?"""
    return path in QUIET_ROUTES or path == vertex_health_route or _MODEL_READY.fullmatch(path) is not None


async def answer_framework_error(request: Request, error: Exception) -> Response:
    """For errors that the framework would otherwise answer in its own format: 404, 405, its validation."""
    return Exchange.of(request).problem(fault_of(error))


class Leavable(Protocol):
    """How our own server tells that a client has left, in the state of a scope as `call`."""

    disconnected: bool
    on_leave: Callable[[], object] | None


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; cancel it and raise ClientDisconnect once the client has disconnected. Call it after the body is
    read."""
    call: Leavable | None = request.scope.get("state", {}).get("call")
    return await (_watching(request.receive, work) if call is None else _unless_left(call, work))


async def _unless_left(call: Leavable, work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.current_task()
    assert task is not None
    call.on_leave = task.cancel
    if call.disconnected:
        task.cancel()
    try:
        return await work
    except asyncio.CancelledError:
        if not call.disconnected or (sys.version_info >= (3, 11) and task.uncancel()):
            raise  # it was cancelled by others, too
        raise ClientDisconnect from None
    finally:
        call.on_leave = None


async def _watching(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """With any server: by a task, which takes a fifteenth of the event loop's time for a request."""
    with anyio.CancelScope() as scope:
        watch = asyncio.create_task(_cancel_at_disconnect(receive, scope))
        try:
            return await work
        finally:
            watch.cancel()
    raise ClientDisconnect


async def _cancel_at_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    scope.cancel()


class RequestMiddleware:
    """Pure ASGI: the framework's BaseHTTPMiddleware would hide that a client has disconnected."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        vertex_health_route: str = "",
        clock: Callable[[], float] = time.monotonic,
        tracing: Tracing | None = None,
        objective_s: float = 0.1,
        followers: Sequence[Follower] = (),
    ) -> None:
        self._app = app
        self._followers = followers
        self._objective_s = objective_s
        metrics.objective.set(objective_s)
        self._metrics = metrics
        self._vertex_health_route = vertex_health_route
        self._clock = clock
        self._tracing = tracing
        self._holds = Holds()
        self._unlogged = Unlogged(clock)
        self._answered_at = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        traced = self._tracing and not is_quiet(scope["path"], self._vertex_health_route)
        exchange = Exchange.begin(scope, self._clock, self._tracing if traced else None)
        exchange.objective_s = self._objective_s
        exchange.followers = self._followers
        scope.setdefault("state", {})["exchange"] = exchange
        if "received" in scope["state"]:
            self._metrics.loop_lag.note(self._clock() - scope["state"]["received"])
        if exchange.conduct and not is_quiet(scope["path"], self._vertex_health_route):
            exchange.conduct.ask(exchange.arrived)
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}

        async def stamp(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if exchange.code in REFUSALS and exchange.conduct is not None:
                    await self._hold(exchange, exchange.conduct, headers)
                    if exchange.conduct.has_left:
                        return
                exchange.status = message["status"]
                headers["X-Request-ID"] = exchange.request_id
                headers["Server-Timing"] = exchange.server_timing()
                if exchange.trace:
                    headers["traceresponse"] = exchange.trace.response_header
            await send(message)

        try:
            await self._answer(exchange, scope, receive, stamp)
        finally:
            self._record(exchange, method, scope)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            exchange.status = CLIENT_LEFT
        except Exception as error:
            fault = fault_of(error)
            if fault.code == "internal_error":
                log.exception("%s failed", exchange.path, extra=exchange.ids)
            if exchange.status is not None:
                exchange.code = fault.code
                raise  # part of the answer is sent: all that is left is to close the connection
            await exchange.problem(fault)(scope, receive, send)

    async def _hold(self, exchange: Exchange, conduct: Conduct, headers: MutableHeaders) -> None:
        await self._holds.hold(conduct, float(headers.get("retry-after", 0)), exchange.has_room)

    def _record(self, exchange: Exchange, method: str, scope: Scope) -> None:
        route = getattr(scope.get("route"), "path", "other")
        status = exchange.status or CLIENT_LEFT  # no status: it was cancelled from outside, and nothing was sent
        seconds = exchange.elapsed_s()
        self._count(exchange, route, status, seconds)
        if exchange.trace:
            exchange.trace.end(method, route, status, request_id=exchange.request_id, code=exchange.code)
        if exchange.code in REFUSALS and not self._unlogged.is_first():
            return
        quiet = is_quiet(route, self._vertex_health_route) and status < HTTPStatus.BAD_REQUEST
        level = logging.DEBUG if quiet else logging.INFO
        if access_log.isEnabledFor(level):
            # Not by `access_log.log`, which looks through the stack for its caller.
            fields = _log_fields(exchange, method, scope, status, seconds) | self._unlogged.fields(exchange)
            text, values = "%s %s %d", (method, exchange.path, status)
            access_log.handle(access_log.makeRecord(access_log.name, level, "", 0, text, values, None, extra=fields))

    def _count(self, exchange: Exchange, route: str, status: int, seconds: float) -> None:
        self._metrics.duration_of(route, str(status)).observe(seconds, exchange.exemplar)
        if exchange.limit_s is not None:
            self._count_result(exchange, status)
        for code, count in exchange.failed_images.items():
            self._metrics.images_failed.labels(code).inc(count)
        if route == RELOAD_ROUTE and exchange.code in REFUSED_RELOADS:
            self._metrics.reloads_refused.labels(REFUSED_RELOADS[exchange.code]).inc()
        if exchange.code in REJECTIONS:
            self._metrics.requests_rejected.labels(REJECTIONS[exchange.code]).inc()
        if "read" in exchange.stages:
            self._metrics.stage("read").observe(exchange.stages["read"])
        elif status == CLIENT_LEFT:
            self._metrics.requests_cancelled.labels("read").inc()
        if exchange.answered is not None:
            self._metrics.stage("respond").observe(exchange.clock() - exchange.answered)

    def _count_result(self, exchange: Exchange, status: int) -> None:
        work = exchange.work(status, others_are_answered=self._answers())
        result = work.result(self._objective_s)
        if result in ("good", "slow"):
            self._answered_at = self._clock()
        if result == "failed" and exchange.code == "overloaded" and exchange.conduct is not None:
            exchange.conduct.judge(self._count_refusal)
        else:
            self._metrics.result(result).inc()

    def _count_refusal(self, waited: bool) -> None:
        """Whether the service failed its client depends on what the client does next."""
        self._metrics.result("failed" if waited or not self._answers() else "excluded").inc()

    def _answers(self) -> bool:
        """Anybody at all? If not, even clients that ask again too early are right to complain."""
        return self._clock() - self._answered_at < ANSWERS_S


def _log_fields(exchange: Exchange, method: str, scope: Scope, status: int, seconds: float) -> dict[str, Any]:
    client = scope.get("client")
    fields = {
        "method": method,
        "path": exchange.path,
        "status": status,
        "code": exchange.code,
        "client": client[0] if client else None,
        "images": exchange.images,
        "failed_images": dict(exchange.failed_images) or None,
        "batch_size": exchange.batch_size,
        **{f"{stage}_ms": round(duration * 1000, 3) for stage, duration in exchange.stages.items()},
        "total_ms": round(seconds * 1000, 3),
        **exchange.ids,
    }
    return {name: value for name, value in fields.items() if value is not None}
