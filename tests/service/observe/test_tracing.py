"""With the SDK's exporter in memory; over a socket: tests/e2e/test_tracing.py."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from starlette.testclient import TestClient

from service.app import create_app
from service.engines.runtimes.fake import FakeEngine
from service.errors import ConfigError
from service.observe.tracing import Tracing
from service.runtime.server import find_tracing
from service.settings import Settings

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
JPEG = {"content-type": "image/jpeg"}


class Traced:
    """The service on a fake engine behind `gate`, which is open, and the spans that it made."""

    def __init__(self, bundle: Path, sampler: Any = None) -> None:
        self.registry, self.gate, self._memory = CollectorRegistry(), threading.Event(), InMemorySpanExporter()
        self.gate.set()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._memory))
        settings = Settings(model=str(bundle), single_flight="off", max_batch_size=4)
        engine = FakeEngine(10, 32, gate=self.gate)
        self.app = create_app(settings, engine=engine, registry=self.registry, tracing=Tracing(provider))
        self.client = TestClient(self.app)

    def until(self, is_so: Callable[[], object]) -> None:
        give_up_at = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < give_up_at, "waited in vain"
            time.sleep(0.005)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._memory.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        (found,) = self.spans(name)
        return found


@pytest.fixture
def traced(tiny_bundle: Path) -> Iterator[Callable[..., Traced]]:
    running: list[TestClient] = []

    def start(**options: Any) -> Traced:
        it = Traced(tiny_bundle, **options)
        running.append(it.client.__enter__())
        it.until(lambda: it.client.get("/startupz").status_code == 200)
        return it

    yield start
    for client in running:
        client.__exit__(None, None, None)


def test_a_request_continues_its_callers_trace_and_returns_its_span(
    traced: Callable[..., Traced], jpeg_bytes: bytes
) -> None:
    it = traced()
    reply = it.client.post("/classify", content=jpeg_bytes, headers=JPEG | TRACEPARENT | {"x-request-id": "7"})
    span = it.span("POST /classify")
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == CALLER
    assert reply.headers["traceresponse"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert span.kind == SpanKind.SERVER
    assert span.attributes == {
        "http.request.method": "POST",
        "url.path": "/classify",
        "http.route": "/classify",
        "http.response.status_code": 200,
        "repvgg.request_id": "7",
    }


def test_the_stages_are_spans_of_the_request_one_after_the_other(
    traced: Callable[..., Traced], jpeg_bytes: bytes
) -> None:
    it = traced()
    it.client.post("/classify", content=jpeg_bytes, headers=JPEG)
    request, stages = it.span("POST /classify"), [it.span(name) for name in ("read", "decode", "queue", "infer")]
    for stage in stages:
        assert stage.parent is not None
        assert stage.parent.span_id == request.context.span_id
    moments = [moment for span in stages for moment in (span.start_time, span.end_time)]
    # Nanoseconds: the wall clock and the monotonic one are read one after the other.
    assert moments == pytest.approx(sorted(moments), abs=5e6)
    assert request.start_time - 5e6 < moments[0] < moments[-1] < request.end_time + 5e6


def test_each_image_has_its_stages(traced: Callable[..., Traced], jpeg_bytes: bytes) -> None:
    it = traced()
    it.client.post("/classify", files=[("a", ("a.jpg", jpeg_bytes)), ("b", ("b.jpg", jpeg_bytes))])
    assert [len(it.spans(name)) for name in ("read", "decode", "queue", "infer")] == [1, 2, 2, 2]


def test_a_batch_and_its_requests_are_linked(
    traced: Callable[..., Traced], jpeg_bytes: bytes, draw_image: Callable[..., bytes]
) -> None:
    it = traced()
    it.gate.clear()
    batcher = it.app.state.lifecycle.classifier.batcher
    with ThreadPoolExecutor(4) as clients:
        ask = [clients.submit(it.client.post, "/classify", content=jpeg_bytes, headers=JPEG)]
        it.until(lambda: not batcher.idle)
        two = [("a", ("a.jpg", jpeg_bytes)), ("b", ("b.jpg", jpeg_bytes))]
        ask += [
            clients.submit(it.client.post, "/classify", content=jpeg_bytes, headers=JPEG | TRACEPARENT),
            clients.submit(it.client.post, "/classify", files=two),
        ]
        it.until(lambda: batcher.queue_depth == 3)
        it.gate.set()
        assert [future.result().status_code for future in ask] == [200] * 3
    assert len(it.spans("batch")) == 2
    (batch,) = [span for span in it.spans("batch") if span.attributes == {"repvgg.batch_size": 3}]
    requests = {span.context.span_id: span for span in it.spans("POST /classify")}
    linked = [requests[link.context.span_id] for link in batch.links]
    assert len(linked) == 2  # the one with two images is linked once
    assert TRACE in {f"{span.context.trace_id:032x}" for span in linked}
    for span in it.spans("infer"):
        (link,) = span.links
        belongs = span.parent is not None and requests[span.parent.span_id] in linked
        assert (link.context.span_id == batch.context.span_id) is belongs


def test_a_batch_is_recorded_if_one_of_its_requests_is(traced: Callable[..., Traced], jpeg_bytes: bytes) -> None:
    it = traced(sampler=ParentBased(ALWAYS_OFF))
    it.client.post("/classify", content=jpeg_bytes, headers=JPEG)
    assert it.spans("batch") == []
    it.client.post("/classify", content=jpeg_bytes, headers=JPEG | TRACEPARENT)
    assert f"{it.span('batch').context.trace_id:032x}" == TRACE


def test_a_server_error_fails_its_span_a_clients_error_does_not(
    traced: Callable[..., Traced], jpeg_bytes: bytes
) -> None:
    it = traced()
    it.client.post("/classify", content=b"no image", headers=JPEG)
    it.app.state.lifecycle.classifier = None
    it.client.post("/classify", content=jpeg_bytes, headers=JPEG)
    wrong, failed = it.spans("POST /classify")
    assert (wrong.status.status_code, failed.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)
    for span, code in ((wrong, "undecodable_image"), (failed, "not_ready")):
        assert span.attributes is not None
        assert span.attributes["error.type"] == code


def test_probes_and_scrapes_are_not_traced(traced: Callable[..., Traced]) -> None:
    it = traced()
    replies = [it.client.get(path) for path in ("/readyz", "/metrics", "/livez")]
    assert all("traceresponse" not in reply.headers for reply in replies)
    it.client.get("/models")
    assert [span.name for span in it._memory.get_finished_spans()] == ["GET /models"]


def test_the_trace_id_stands_in_the_log_and_in_the_exemplar(
    traced: Callable[..., Traced], jpeg_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    it = traced()
    with caplog.at_level(logging.INFO, "service.access"):
        it.client.post("/classify", content=jpeg_bytes, headers=JPEG | TRACEPARENT | {"x-request-id": "x" * 100})
    (record,) = [record for record in caplog.records if getattr(record, "path", "") == "/classify"]
    assert (record.trace_id, record.request_id) == (TRACE, "x" * 100)
    (exemplar,) = re.findall(rb'route="/classify".*# ({.*}) ', generate_openmetrics(it.registry))
    assert exemplar == f'{{trace_id="{TRACE}"}}'.encode()


def test_without_variables_nothing_is_imported() -> None:
    """But for OpenTelemetry's interface, which newer versions of FastAPI import by themselves."""
    program = "import sys, service.runtime.server as s; s.create_app(s.Settings(), tracing=s.find_tracing({})); "
    program += (
        "assert not {'service.observe.tracing', 'opentelemetry.sdk', 'opentelemetry.exporter'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "console"},
        {"OTEL_SERVICE_NAME": "photos"},
    ],
)
def test_disabled_tracing_stays_off(environ: dict[str, str]) -> None:
    assert find_tracing(environ) is None


def test_an_unknown_exporter_is_a_configuration_error() -> None:
    with pytest.raises(
        ConfigError, match="OTEL_TRACES_EXPORTER=zipkin is not supported; supported are otlp, console and none"
    ):
        find_tracing({"OTEL_TRACES_EXPORTER": "zipkin"})


def test_without_the_extra_the_service_starts_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "service.observe.tracing", None)
    assert find_tracing({"OTEL_TRACES_EXPORTER": "console"}) is None
    assert "pip install 'repvgg[tracing]'" in caplog.text


def test_an_unavailable_collector_does_not_delay_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.observe.tracing.CLOSING_S", 0.05)

    class Stuck(SpanExporter):
        over = threading.Event()

        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.FAILURE

        def shutdown(self) -> None:
            self.over.wait()

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(Stuck()))
    Tracing(provider).close()
    assert not Stuck.over.is_set()
    Stuck.over.set()
