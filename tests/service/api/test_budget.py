"""What counts against the objectives, through the application: `observe.objective` has the rules."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service.api.conduct import Conduct
from service.api.problems import Fault
from service.api.requests import ANSWERS_S, RequestMiddleware
from service.engines.runtimes.fake import FakeEngine
from service.observe.metrics import Metrics

if TYPE_CHECKING:
    from starlette.testclient import TestClient

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture
def counted(registry: CollectorRegistry) -> Callable[[], dict[str, float]]:
    """-> the results that were counted."""

    def read() -> dict[str, float]:
        names = ("good", "slow", "failed", "excluded")
        values = {name: registry.get_sample_value("repvgg_slo_requests_total", {"result": name}) for name in names}
        return {name: value for name, value in values.items() if value}

    return read


def post(client: TestClient, path: str, *images: bytes) -> int:
    files = [("image", (f"{index}.jpg", image, "image/jpeg")) for index, image in enumerate(images)]
    return client.post(path, files=files).status_code


def test_a_rude_client_costs_nothing(
    serve: Callable[..., TestClient], counted: Callable[[], dict[str, float]], jpeg_bytes: bytes
) -> None:
    client = serve(objective_ms=60_000)
    assert client.post("/classify?timeout_ms=1", content=jpeg_bytes * 100, headers=JPEG).status_code in (503, 504)
    assert client.post("/classify", content=b"junk", headers=JPEG).status_code == 422
    assert client.post("/classify?top_k=0", content=jpeg_bytes, headers=JPEG).status_code == 422
    assert client.post("/classify", content=jpeg_bytes).status_code == 415
    assert client.post("/v2/models/other/infer", content=b"{}").status_code == 404
    assert client.post("/v2/models/tiny/infer", content=b"{}").status_code == 400
    assert counted() == {"excluded": 6}
    assert post(client, "/classify", jpeg_bytes, b"junk") == 200
    assert counted() == {"excluded": 6, "good": 1}


def test_probes_scrapes_and_unknown_paths_do_not_count(
    client: TestClient, counted: Callable[[], dict[str, float]]
) -> None:
    for path in ("/livez", "/metrics", "/models", "/", "/nowhere"):
        client.get(path)
    assert counted() == {}


def test_an_engine_that_fails_costs_the_budget(
    serve: Callable[..., TestClient], counted: Callable[[], dict[str, float]], jpeg_bytes: bytes
) -> None:
    def fail(images: object) -> None:
        if images.any():  # type: ignore[attr-defined]  # those of the warm-up are black
            raise RuntimeError("broken")

    client = serve(FakeEngine(10, 32, fail=fail), vertex_predict_route="/predict")
    assert client.post("/classify", content=jpeg_bytes, headers=JPEG).status_code == 500
    assert client.post("/predict", json={"instances": []}).status_code == 400
    assert counted() == {"failed": 1, "excluded": 1}


@pytest.mark.parametrize(("objective_ms", "result"), [(1, "slow"), (600_000, "good")])
def test_the_latency_objective_is_that_of_the_settings(
    serve: Callable[..., TestClient],
    counted: Callable[[], dict[str, float]],
    registry: CollectorRegistry,
    jpeg_bytes: bytes,
    objective_ms: int,
    result: str,
) -> None:
    client = serve(FakeEngine(10, 32, seconds_per_batch=0.01), objective_ms=objective_ms)
    assert client.post("/classify", content=jpeg_bytes, headers=JPEG).status_code == 200
    assert counted() == {result: 1}
    assert registry.get_sample_value("repvgg_objective_seconds") == objective_ms / 1000


def test_one_bad_image_among_good_ones_is_counted_and_logged(
    client: TestClient, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture, jpeg_bytes: bytes
) -> None:
    caplog.set_level(logging.INFO, "service.access")
    assert post(client, "/classify", jpeg_bytes, b"junk", b"more junk") == 200
    (record,) = [record for record in caplog.records if record.name == "service.access"]
    assert record.failed_images == {"undecodable_image": 2}
    assert registry.get_sample_value("repvgg_images_failed_total", {"code": "undecodable_image"}) == 2


def test_refused_reloads_are_counted(client: TestClient, registry: CollectorRegistry) -> None:
    assert client.post("/models/reload?version=7").status_code == 422
    assert client.post("/models/reload", headers={"Origin": "http://evil.example.com"}).status_code == 403
    reasons = ("rejected", "forbidden", "running")
    found = [registry.get_sample_value("repvgg_reloads_refused_total", {"reason": reason}) for reason in reasons]
    assert found == [1, 1, 0]


class Front:
    """The middleware over an application that answers what `overloaded` says."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.overloaded = False
        self.now = time.monotonic()
        self._middleware = RequestMiddleware(self._app, Metrics(registry), clock=lambda: self.now)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["state"]["exchange"]
        exchange.expect_answer_within(10)
        reply = exchange.problem(Fault("overloaded", "busy", 1.0)) if self.overloaded else Response("ok")
        await reply(scope, receive, send)

    async def ask(self, conduct: Conduct, *, overloaded: bool, after_s: float = 0.0) -> None:
        async def nothing(message: Message | None = None) -> Message:
            return {"type": "http.disconnect"}

        self.now += after_s
        self.overloaded = overloaded
        state = {"arrived": self.now, "conduct": conduct}
        scope = {"type": "http", "method": "POST", "path": "/classify", "headers": [], "state": state}
        await self._middleware(scope, nothing, nothing)  # type: ignore[arg-type]


Run = Callable[[Coroutine[Any, Any, None]], None]


def test_refusals_to_a_client_that_ignores_retry_after_cost_nothing(
    run: Run, registry: CollectorRegistry, counted: Callable[[], dict[str, float]]
) -> None:
    async def scenario() -> None:
        front, rude = Front(registry), Conduct()
        await front.ask(Conduct(), overloaded=False)
        for _ in range(3):
            await front.ask(rude, overloaded=True)

    run(scenario())
    assert counted() == {"good": 1, "excluded": 3}


def test_a_refusal_to_a_client_that_waits_costs_the_budget(
    run: Run, registry: CollectorRegistry, counted: Callable[[], dict[str, float]]
) -> None:
    async def scenario() -> None:
        front, polite = Front(registry), Conduct()
        await front.ask(polite, overloaded=True)
        assert counted() == {}
        await front.ask(polite, overloaded=False, after_s=60.0)

    run(scenario())
    assert counted() == {"failed": 1, "good": 1}


def test_where_nobody_is_answered_even_rude_clients_count(
    run: Run, registry: CollectorRegistry, counted: Callable[[], dict[str, float]]
) -> None:
    async def scenario() -> None:
        front, rude = Front(registry), Conduct()
        await front.ask(Conduct(), overloaded=False)
        await front.ask(rude, overloaded=True, after_s=ANSWERS_S)
        await front.ask(rude, overloaded=True)
        rude.leave()

    run(scenario())
    assert counted() == {"good": 1, "failed": 2}
