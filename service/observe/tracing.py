"""OpenTelemetry traces of requests and batches; imported only if the environment enables them.

1. a request continues its caller's trace (W3C `traceparent`), and `traceresponse` tells the caller its span;
2. reading the body, and each image's decode, queue and infer, are spans of the request;
3. a batch is a span with a link to each of its requests, and each infer span links to its batch;
4. the standard variables configure everything: exporter, endpoint, headers, sampler, propagators, resource.

A batch belongs to the trace of one of its sampled requests, if it has any. `traceresponse` is defined in the W3C draft
"Trace Context Level 2"; attribute names follow OpenTelemetry's semantic conventions for HTTP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, Tracer, set_span_in_context

from service.errors import ConfigError
from service.observe.metrics import program_version

# Values of OTEL_TRACES_EXPORTER.
EXPORTERS = {"otlp": OTLPSpanExporter, "console": ConsoleSpanExporter}
CLOSING_S = 2.0

# Identifies a batch's span to the images in it.
BatchSpan: TypeAlias = SpanContext


class RequestTrace:
    """One request, from `start` to `end`; times are seconds of `time.monotonic`."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span)

    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def sampled(self) -> bool:
        return self._span.get_span_context().trace_flags.sampled

    @property
    def response_header(self) -> str:
        context = self._span.get_span_context()
        return f"00-{self.trace_id}-{context.span_id:016x}-{context.trace_flags:02x}"

    def image(
        self, started: float, *, decode_s: float, queue_s: float, infer_s: float, batch: BatchSpan | None
    ) -> None:
        """The consecutive stages of one image. `batch`: the batch it was computed in."""
        self.stage("decode", started, decode_s)
        self.stage("queue", started + decode_s, queue_s)
        self.stage("infer", started + decode_s + queue_s, infer_s, batch)

    def stage(self, name: str, started: float, seconds: float, batch: BatchSpan | None = None) -> None:
        """A finished stage. `batch`: the batch the image was computed in."""
        links = [Link(batch)] if batch else []
        span = self._tracer.start_span(name, self._context, links=links, start_time=_wall_ns(started))
        span.end(_wall_ns(started + seconds))

    def batch(self, together: Sequence[RequestTrace], started: float, seconds: float, size: int) -> BatchSpan:
        """A finished batch of `size` images; `together`: the requests in it, including this one."""
        requests = dict.fromkeys(together)  # a request that sent several images appears several times
        span = self._tracer.start_span(
            "batch",
            next((trace for trace in requests if trace.sampled), self)._context,
            attributes={"repvgg.batch_size": size},
            links=[Link(trace._span.get_span_context()) for trace in requests],
            start_time=_wall_ns(started),
        )
        span.end(_wall_ns(started + seconds))
        return span.get_span_context()

    def end(self, method: str, route: str, status: int, *, request_id: str, code: str | None) -> None:
        """`route` is the path template, `code` that of the problem document, if there was one."""
        self._span.update_name(f"{method} {route}")
        self._span.set_attributes({"http.route": route, "http.response.status_code": status})
        self._span.set_attribute("repvgg.request_id", request_id)
        if code:
            self._span.set_attribute("error.type", code)
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Tracing:
    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("repvgg")

    def start(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> RequestTrace:
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        attributes = {"http.request.method": method, "url.path": path}
        caller = propagate.extract(carrier)
        return RequestTrace(self._tracer, self._tracer.start_span(method, caller, SpanKind.SERVER, attributes))

    def close(self) -> None:
        """Send what is left. Blocks for at most CLOSING_S, in case the collector is unavailable."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSING_S)


def open_tracing(exporter: str) -> Tracing:
    """Trace to one of EXPORTERS; OpenTelemetry reads the rest from the environment. Raises ConfigError."""
    if exporter not in EXPORTERS:
        raise ConfigError(
            f"OTEL_TRACES_EXPORTER={exporter} is not supported; supported are {', '.join(EXPORTERS)} and none"
        )
    ours = Resource({"service.name": "repvgg", "service.version": program_version()})
    resource = Resource.create().merge(ours).merge(OTELResourceDetector().detect())  # the environment takes precedence
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(EXPORTERS[exporter]()))
    return Tracing(provider)


def _wall_ns(moment: float) -> int:
    """A time of `time.monotonic` -> nanoseconds since the epoch."""
    return time.time_ns() - round((time.monotonic() - moment) * 1e9)
