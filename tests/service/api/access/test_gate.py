"""The whole application on a fake engine; the connection's part is played here."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from service.api import conduct as conducts
from service.api.access.gate import EARLY_MARGIN, GateMiddleware
from service.api.conduct import Conduct
from service.classify.admission import MARGIN
from service.classify.classifier import Classifier
from service.errors import Overloaded

# What comes next is that the request has no Content-Type.
ADMITTED = 415
Ask = Callable[..., tuple[int, dict[str, str], Any]]


@pytest.fixture
def ask(serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`ask(conduct, path)` -> status, headers, document. Its request is never read."""
    monkeypatch.setattr(conducts, "FIRST_HOLD_S", 1e-9)
    client = serve()

    def post(conduct: Conduct | None, path: str = "/classify", query: str = "", key: str = "") -> Any:
        async def receive() -> Any:
            raise AssertionError("the body is read")

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        state = {"arrived": time.monotonic(), "received": time.monotonic(), "conduct": conduct}
        scope = {
            **{"type": "http", "method": "POST", "path": path, "query_string": query.encode(), "root_path": ""},
            **{"headers": [], "client": ("10.0.0.9", 5), "state": state, "http_version": "1.1", "scheme": "http"},
        }
        assert client.portal is not None
        client.portal.call(client.app, scope, receive, send)  # type: ignore[arg-type]
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], headers, json.loads(sent[1]["body"])

    return post


def early() -> Conduct:
    conduct = Conduct()
    conduct.refuse(1.0)
    return conduct


def busy(monkeypatch: pytest.MonkeyPatch, wait_s: float) -> None:
    """So much work is waiting, of images that take 1 ms."""
    monkeypatch.setattr("service.classify.admission.Admission.predicted_wait_s", lambda *_: wait_s)
    monkeypatch.setattr("service.classify.admission.Admission._engine_s", lambda *_: 0.001)


@pytest.mark.parametrize(
    "path", ["/classify", "/invocations", "/v2/models/tiny/infer", "/v2/models/tiny/versions/1/infer"]
)
def test_a_refusal_before_routing_is_like_any_other(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, registry: CollectorRegistry, path: str
) -> None:
    busy(monkeypatch, 3000.0)
    replies = [ask(conduct, path, "timeout_ms=1000") for conduct in (None, early())]
    (status, headers, problem), (early_status, early_headers, early_problem) = replies
    assert status == early_status == 503
    assert early_headers.keys() == headers.keys() >= {"retry-after", "x-request-id", "server-timing"}
    assert early_problem.keys() == problem.keys()
    assert early_problem["code"] == problem["code"] == "overloaded"
    route = path.replace("tiny", "{name}").replace("versions/1", "versions/{version}")
    labels = {"route": route, "code": "503"}
    assert registry.get_sample_value("repvgg_request_duration_seconds_count", labels) == 2
    assert registry.get_sample_value("repvgg_requests_rejected_total", {"reason": "overload"}) == 2


def test_a_client_that_does_not_wait_may_fill_less_than_one_that_does(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(monkeypatch, (EARLY_MARGIN + MARGIN) / 2)
    refused = ask(early(), query="timeout_ms=1000")
    assert (refused[0], refused[2]["code"]) == (503, "overloaded")
    assert ask(Conduct(), query="timeout_ms=1000")[0] == ADMITTED


def test_one_that_can_be_served_is_served_however_early(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch, 0.001)
    assert ask(early(), query="timeout_ms=1000")[0] == ADMITTED


def test_a_deadline_that_cannot_be_met_is_answered_504_there_too(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch, 0.0)
    monkeypatch.setattr("service.classify.admission.Admission._engine_s", lambda *_: 9.0)
    monkeypatch.setattr("service.classify.speed.batches.BatchSpeed.may_reject", True)  # a batch has just said so
    assert ask(early(), query="top_k=1&timeout_ms=20")[2]["code"] == "deadline_exceeded"


def test_the_margin_follows_how_many_are_late() -> None:
    gate = GateMiddleware(None, None, type("S", (), {"timeout_ms": 1, "vertex_predict_route": ""})())  # type: ignore[arg-type]

    class Exchange:
        def __init__(self, elapsed_s: float) -> None:
            self.elapsed_s = lambda: elapsed_s

    def answered(elapsed_s: float, times: int) -> float:
        for _ in range(times):
            with gate._learning(Exchange(elapsed_s), 1.0):  # type: ignore[arg-type]
                pass
        return gate._margin

    start = answered(0.1, 0)
    assert answered(0.1, 100) > start
    assert answered(0.95, 100) == start, "it has a lower limit"
    assert answered(0.1, 10_000) == answered(0.1, 1) < MARGIN, "and an upper one"


def test_a_flood_of_refusals_is_a_line_a_second(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    busy(monkeypatch, 30.0)
    with caplog.at_level(logging.INFO, "service.access"):
        begun = time.monotonic()
        for _ in range(50):
            ask(None)
        seconds = int(time.monotonic()) - int(begun)
        lines = [record for record in caplog.records if record.name == "service.access"]
        assert len(lines) == seconds + 1
        time.sleep(1.0)
        ask(None)
        lines = [record for record in caplog.records if record.name == "service.access"]
    counted = sum(getattr(line, "more_refusals", 0) for line in lines)
    assert counted + len(lines) == 51


def test_admission_takes_the_margin(serve: Callable[..., TestClient]) -> None:
    classifier: Classifier = serve().app.state.lifecycle.classifier  # type: ignore[attr-defined]
    classifier.admit(time.monotonic() + 10, EARLY_MARGIN)


def test_a_client_that_waits_and_is_refused_again_makes_the_others_get_less() -> None:
    gate = GateMiddleware(None, None, type("S", (), {"timeout_ms": 1, "vertex_predict_route": ""})())  # type: ignore[arg-type]
    answered = type("Exchange", (), {"elapsed_s": lambda _: 0.1})()

    def answer(times: int) -> float:
        for _ in range(times):
            with gate._learning(answered, 1.0):
                pass
        return gate._margin

    assert answer(1000) > EARLY_MARGIN
    with pytest.raises(Overloaded), gate._making_room():
        raise Overloaded("", 1.0)
    assert answer(1000) == EARLY_MARGIN, "and for a while"
    gate._grows_from = 0.0
    assert answer(1000) > EARLY_MARGIN
