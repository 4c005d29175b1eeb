from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect, Request

from service.api.problems import INTERNAL
from service.api.requests import CLIENT_LEFT, RequestMiddleware, while_connected
from service.app import create_app
from service.engines.runtimes.fake import FakeEngine
from service.observe.metrics import Metrics
from service.settings import Settings

if TYPE_CHECKING:
    from starlette.testclient import TestClient

JPEG = {"content-type": "image/jpeg"}
SCOPE = {"type": "http", "method": "GET", "path": "/x", "headers": [], "client": ("10.0.0.9", 5)}
STAGES = r"read;dur=[\d.]+, decode;dur=[\d.]+, queue;dur=[\d.]+, infer;dur=[\d.]+;desc=\"batch=1\", total;dur=[\d.]+"


class Channel:
    """Both ends of one request: what the client sends, then its leaving; and what came back."""

    def __init__(self, body: bytes = b"", *, leaves: bool = False) -> None:
        self.sent: list[dict[str, Any]] = []
        self._messages = [{"type": "http.request", "body": body}]
        self.leave = asyncio.Event()
        if leaves:
            self.leave.set()

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop(0)
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


async def run_in_middleware(app: Any, channel: Channel, registry: CollectorRegistry) -> None:
    await RequestMiddleware(app, Metrics(registry))(dict(SCOPE), channel.receive, channel.send)


def access_lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "service.access"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/livez"), ("GET", "/metrics"), ("GET", "/no"), ("PUT", "/models")]
)
def test_every_reply_carries_its_id_and_its_timing(client: TestClient, method: str, path: str) -> None:
    reply = client.request(method, path)
    assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-request-id"])
    assert re.fullmatch(r"total;dur=[\d.]+", reply.headers["server-timing"])


def test_an_answer_tells_the_time_of_every_stage(client: TestClient, jpeg_bytes: bytes) -> None:
    reply = client.post("/classify", content=jpeg_bytes, headers=JPEG)
    assert re.fullmatch(STAGES, reply.headers["server-timing"])


@pytest.mark.parametrize("given", ["7", "a-b_c:d/1", "x" * 100])
def test_a_short_printable_id_is_taken(client: TestClient, given: str) -> None:
    reply = client.get("/nope", headers={"X-Request-ID": given})
    assert reply.headers["x-request-id"] == reply.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 101, "two words", "tab\tbed", "ä".encode()])
def test_another_id_is_replaced(client: TestClient, given: str | bytes) -> None:
    reply = client.get("/nope", headers=[("X-Request-ID", given)])
    assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-request-id"])


def test_an_exception_nobody_foresaw_answers_500_and_is_logged_once_with_its_traceback(
    caplog: pytest.LogCaptureFixture, registry: CollectorRegistry
) -> None:
    async def scenario() -> Channel:
        async def broken(scope: Any, receive: Any, send: Any) -> None:
            raise ZeroDivisionError("the secret of the inside")

        channel = Channel()
        await run_in_middleware(broken, channel, registry)
        return channel

    start, body = asyncio.run(scenario()).sent
    problem = json.loads(body["body"])
    assert (start["status"], problem["code"], problem["detail"]) == (500, "internal_error", INTERNAL)
    assert b"secret" not in body["body"]
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.request_id == problem["request_id"]
    assert "the secret of the inside" in caplog.text


def test_half_an_answer_is_not_followed_by_another_one(registry: CollectorRegistry) -> None:
    async def scenario() -> Channel:
        async def broken(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise ZeroDivisionError

        channel = Channel()
        with pytest.raises(ZeroDivisionError):
            await run_in_middleware(broken, channel, registry)
        return channel

    assert [message["type"] for message in asyncio.run(scenario()).sent] == ["http.response.start"]


def test_what_is_no_http_passes_untouched(registry: CollectorRegistry) -> None:
    async def scenario() -> list[str]:
        seen = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["type"])

        await RequestMiddleware(app, Metrics(registry))({"type": "lifespan"}, Channel().receive, Channel().send)
        return seen

    assert asyncio.run(scenario()) == ["lifespan"]


def test_a_client_that_leaves_stops_its_work_and_gets_nothing(
    caplog: pytest.LogCaptureFixture, registry: CollectorRegistry, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    at_work, gate = threading.Event(), threading.Event()
    gate.set()
    engine = FakeEngine(10, 32, fail=lambda images: (at_work.set(), gate.wait()))
    caplog.set_level(logging.INFO)

    async def scenario() -> Channel:
        app = create_app(Settings(model=str(tiny_bundle)), engine=engine, registry=registry)
        async with app.state.lifecycle.running():
            await app.state.lifecycle.opened.wait()
            gate.clear()
            at_work.clear()
            channel = Channel(jpeg_bytes)
            scope = {**SCOPE, "method": "POST", "path": "/classify", "headers": [(b"content-type", b"image/jpeg")]}
            request = asyncio.create_task(app(scope | {"query_string": b""}, channel.receive, channel.send))
            await asyncio.to_thread(at_work.wait)
            channel.leave.set()
            await request  # the engine is still busy: only the leaving can have ended it
            gate.set()
            return channel

    assert asyncio.run(scenario()).sent == []
    (line,) = access_lines(caplog)
    assert (line.status, line.path) == (CLIENT_LEFT, "/classify")
    assert registry.get_sample_value("repvgg_requests_cancelled_total", {"stage": "infer"}) == 1
    assert registry.get_sample_value("repvgg_requests_cancelled_total", {"stage": "read"}) == 0
    labels = {"route": "/classify", "code": "499"}
    assert registry.get_sample_value("repvgg_request_duration_seconds_count", labels) == 1


def test_a_client_that_leaves_while_sending_counts_as_cancelled_in_read(
    caplog: pytest.LogCaptureFixture, registry: CollectorRegistry
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> Channel:
        async def reading(scope: Any, receive: Any, send: Any) -> None:
            raise ClientDisconnect

        channel = Channel()
        await run_in_middleware(reading, channel, registry)
        return channel

    assert asyncio.run(scenario()).sent == []
    assert access_lines(caplog)[0].status == CLIENT_LEFT
    assert registry.get_sample_value("repvgg_requests_cancelled_total", {"stage": "read"}) == 1


class Server:
    """Tells as our own server does whether the client has left."""

    def __init__(self, *, left: bool = False) -> None:
        self.disconnected = left
        self.on_leave: Callable[[], object] | None = None

    def leave(self) -> None:
        self.disconnected = True
        if self.on_leave is not None:
            self.on_leave()


def asked_of(server: Server | None, *, leaves: bool = False) -> Request:
    state = {} if server is None else {"call": server}
    return Request({"type": "http", "state": state}, Channel(leaves=leaves).receive)


@pytest.mark.parametrize("server", [None, Server()], ids=["any server", "our server"])
def test_work_is_awaited_while_the_client_stays(server: Server | None) -> None:
    async def scenario() -> None:
        async def work() -> str:
            await asyncio.sleep(0)
            return "done"

        async def failing() -> None:
            raise KeyError("mine")

        assert await while_connected(asked_of(server), work()) == "done"
        with pytest.raises(KeyError, match="mine"):
            await while_connected(asked_of(server), failing())
        assert server is None or server.on_leave is None

    asyncio.run(scenario())


class Work:
    """Never done. `cancelled`: it was, while somebody awaited it."""

    cancelled = False

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def test_work_of_a_client_that_left_is_cancelled() -> None:
    async def scenario() -> bool:
        work = Work()
        with pytest.raises(ClientDisconnect):
            await while_connected(asked_of(None, leaves=True), work.run())
        return work.cancelled

    assert asyncio.run(scenario())


@pytest.mark.parametrize("left", [False, True], ids=["leaves", "had left"])
def test_our_server_tells_at_once_that_a_client_has_left(left: bool) -> None:
    async def scenario() -> bool:
        work, server = Work(), Server(left=left)
        if not left:
            asyncio.get_running_loop().call_later(0.01, server.leave)
        with pytest.raises(ClientDisconnect):
            await while_connected(asked_of(server), work.run())
        await asyncio.sleep(0)  # the cancellation is over: this is not cancelled
        return work.cancelled

    assert asyncio.run(scenario())


@pytest.mark.parametrize("leaves", [False, True], ids=["it stays", "it leaves too"])
def test_a_request_that_is_cancelled_from_outside_stays_cancelled(leaves: bool) -> None:
    async def scenario() -> bool:
        server = Server()
        task = asyncio.create_task(while_connected(asked_of(server), Work().run()))
        await asyncio.sleep(0)
        if leaves:
            server.leave()
        task.cancel()
        with pytest.raises(asyncio.CancelledError if sys.version_info >= (3, 11) or not leaves else ClientDisconnect):
            await task
        return server.on_leave is None

    assert asyncio.run(scenario())


def test_a_request_is_one_log_line_with_its_stages(
    serve: Callable[..., TestClient], caplog: pytest.LogCaptureFixture, jpeg_bytes: bytes
) -> None:
    client = serve()
    caplog.set_level(logging.INFO)
    caplog.clear()
    client.post("/classify", content=jpeg_bytes, headers=JPEG | {"X-Request-ID": "r7"})
    (line,) = access_lines(caplog)
    assert line.getMessage() == "POST /classify 200"
    assert (line.request_id, line.method, line.path, line.status) == ("r7", "POST", "/classify", 200)
    assert (line.images, line.batch_size, line.client) == (1, 1, "127.0.0.1")
    for stage in ("read_ms", "decode_ms", "queue_ms", "infer_ms"):
        assert 0 <= getattr(line, stage) <= line.total_ms


def test_a_problem_is_logged_with_its_code_and_never_with_the_query(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    caplog.clear()
    client.post("/classify?top_k=0&token=secret")
    (line,) = access_lines(caplog)
    assert (line.status, line.code) == (422, "invalid_parameter")
    assert "secret" not in str(vars(line))


def test_probes_are_logged_only_when_they_fail(
    serve: Callable[..., TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(vertex_health_route="/vertex")
    caplog.set_level(logging.INFO)
    caplog.clear()
    for path in ("/livez", "/metrics", "/ping", "/vertex", "/v2/models/tiny/ready", "/v2/models/tiny/versions/1/ready"):
        assert client.get(path).status_code == 200
    assert access_lines(caplog) == []
    client.app.state.lifecycle.drain()
    client.get("/readyz")
    assert [line.getMessage() for line in access_lines(caplog)] == ["GET /readyz 503"]


def test_requests_and_stages_are_counted(client: TestClient, registry: CollectorRegistry, jpeg_bytes: bytes) -> None:
    client.post("/classify", content=jpeg_bytes, headers=JPEG)
    labels = {"route": "/classify", "code": "200"}
    assert registry.get_sample_value("repvgg_request_duration_seconds_count", labels) == 1
    for stage in ("read", "decode", "queue", "infer", "respond"):
        assert registry.get_sample_value("repvgg_stage_duration_seconds_count", {"stage": stage}) == 1


def test_paths_that_do_not_exist_share_one_series(client: TestClient, registry: CollectorRegistry) -> None:
    for path in ("/a", "/b", "/c"):
        client.get(path)
    assert registry.get_sample_value("repvgg_requests_cancelled_total", {"stage": "read"}) == 0
    labels = {"route": "other", "code": "404"}
    assert registry.get_sample_value("repvgg_request_duration_seconds_count", labels) == 3


def test_refused_requests_are_counted_by_reason(
    serve: Callable[..., TestClient], registry: CollectorRegistry, jpeg_bytes: bytes
) -> None:
    gate = threading.Event()
    gate.set()
    client = serve(FakeEngine(10, 32, gate=gate), max_body_bytes=2000)
    assert client.post("/classify", content=b"x" * 2001, headers=JPEG).status_code == 413
    gate.clear()
    assert client.post("/classify?timeout_ms=1", content=jpeg_bytes, headers=JPEG).status_code == 504
    gate.set()
    assert registry.get_sample_value("repvgg_requests_rejected_total", {"reason": "limit"}) == 1
    assert registry.get_sample_value("repvgg_requests_rejected_total", {"reason": "deadline"}) == 1
    assert registry.get_sample_value("repvgg_requests_rejected_total", {"reason": "overload"}) == 0


def test_openmetrics_points_from_a_bucket_to_a_request(client: TestClient) -> None:
    client.get("/nope", headers={"X-Request-ID": "r8"})
    text = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}).text
    assert re.search(r'repvgg_request_duration_seconds_bucket\{.*route="other".*\} 1.0 # \{request_id="r8"\}', text)
