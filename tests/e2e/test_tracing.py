"""The standard variables, a real server, and a small collector that speaks OTLP over HTTP."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from conftest import Server

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector(ThreadingHTTPServer):
    """Stores what is sent to /v1/traces."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.received: list[ExportTraceServiceRequest] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/traces"
        self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_spans_reach_a_collector_and_the_last_ones_when_the_server_exits(
    start: Callable[..., Server], collector: Collector, jpeg_bytes: bytes
) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test"}
    server = start("--drain-seconds", 0, environ=environ).wait_until_serving()
    headers = {"content-type": "image/jpeg", "traceparent": TRACEPARENT}
    reply = httpx.post(f"{server.url}/classify", content=jpeg_bytes, headers=headers, timeout=120)
    assert reply.headers["traceresponse"].startswith(TRACEPARENT[:36])
    server.signal(signal.SIGTERM)
    assert server.wait() == (0, "")
    resources = [resource for request in collector.received for resource in request.resource_spans]
    attributes = {one.key: one.value.string_value for one in resources[0].resource.attributes}
    assert attributes["service.name"] == "repvgg"
    assert attributes["deployment.environment"] == "test"
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    assert {span.name for span in spans} == {"POST /classify", "read", "decode", "queue", "infer", "batch"}
    assert {span.trace_id.hex() for span in spans} == {TRACEPARENT[3:35]}
    line = next(line for line in server.lines if line.get("path") == "/classify")
    assert line["trace_id"] == TRACEPARENT[3:35]
    assert line["request_id"] == reply.headers["x-request-id"]
