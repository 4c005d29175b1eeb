"""All Prometheus metrics, on a registry that is passed in. Each group says which module updates it.

1. every child starts at 0, so that rates are right from the first event on;
2. histograms are for times, drift signals and the sizes of prediction sets;
3. no client can make the number of series grow.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric, ProcessCollector, Summary
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from models.preprocess import FORMATS
from service.observe import logs
from service.observe.doubt import DoubtMetrics
from service.observe.drift import SIGNALS
from service.observe.feedback import MAX_LABELS, OTHER_LABEL, FeedbackMetrics, KeptMetrics
from service.observe.lag import LoopLag
from service.observe.objective import RESULTS

# Seconds: fine steps on both sides of the default objective of 100 ms, then up to the server's deadline of 10 s.
BUCKETS_S = (
    *(0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05),
    *(0.06, 0.07, 0.08, 0.09, 0.1, 0.125, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0),
)
STAGES = ("read", "decode", "queue", "infer", "respond")
REJECTIONS = ("overload", "deadline", "limit", "draining")
DECODE_FAILURES = ("undecodable_image", "too_many_pixels")
CLASSIFY_CODES = ("200", "400", "413", "415", "422", "500", "503", "504")
IMAGE_FAILURES = (*DECODE_FAILURES, "overloaded", "deadline_exceeded", "not_ready", "draining", "internal_error")
CONNECTION_REFUSALS = ("overloaded", "request_timeout", "headers_too_large", "malformed_request")
REFUSED_RELOADS = ("rejected", "running", "forbidden")
SOURCES = ("hit", "collapsed", "miss")
SLOT_STATES = ("idle", "busy")
MetricT = TypeVar("MetricT", Counter, Histogram)
# Counted as a file format: an image received as a preprocessed tensor.
TENSOR = "tensor"


def children_of(metric: MetricT) -> Callable[..., MetricT]:
    """Its `labels`, for those that each request needs: the metric itself checks and locks each time. None of them is
    ever removed."""
    return cache(metric.labels)


class LogLines(Collector):
    """`repvgg_log_lines_dropped_total`, which the log itself counts."""

    def collect(self) -> Iterable[Metric]:
        text = "Log lines that were dropped because the log was not read or could not be written"
        yield CounterMetricFamily("repvgg_log_lines_dropped", text, value=logs.dropped_lines())


class LifeMetrics:
    """Of every process. Updated by the supervisor, if there are several workers; `restarts` only by it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.restarts = Counter("repvgg_worker_restarts", "Worker processes that were replaced", registry=registry)
        self.older_bundle = Gauge(
            "repvgg_older_bundle",
            "1 if an older version was opened at the start because newer ones could not be",
            registry=registry,
        )
        registry.register(LogLines())


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._known_labels: frozenset[str] = frozenset()
        self._define_requests(registry)
        self._define_images(registry)
        self._define_batching(registry)
        self._define_identity(registry)
        self._define_life(registry)

    def _define_requests(self, registry: CollectorRegistry) -> None:
        """Updated by `api`, but the stages decode, queue and infer by `classifier`.

        The same holds for disconnected clients: `api` counts them in read and respond, `classifier` in the other
        stages.
        """
        self.request_duration = Histogram(
            "repvgg_request_duration_seconds",
            "Duration of requests",
            ["route", "code"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.stage_duration = Histogram(
            "repvgg_stage_duration_seconds",
            "Duration of stages: read and respond per request; decode, queue and infer per image",
            ["stage"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.requests_rejected = Counter(
            "repvgg_requests_rejected", "Requests rejected, by reason", ["reason"], registry=registry
        )
        self.requests_cancelled = Counter(
            "repvgg_requests_cancelled", "Requests whose client disconnected, by stage", ["stage"], registry=registry
        )
        self.loop_lag = LoopLag()  # of the last moments, for admission
        self.event_loop_lag = Histogram(
            "repvgg_event_loop_lag_seconds", "Delay of wake-ups of the event loop", buckets=BUCKETS_S, registry=registry
        )
        self.slo_requests = Counter(
            "repvgg_slo_requests",
            "Requests to classify by what they mean for the objectives; excluded: caused by the client",
            ["result"],
            registry=registry,
        )
        self.objective = Gauge("repvgg_objective_seconds", "The latency objective, of the settings", registry=registry)
        self.reloads_refused = Counter(
            "repvgg_reloads_refused", "Reloads that did not happen, by reason", ["reason"], registry=registry
        )
        self.connections_refused = Counter(
            "repvgg_connections_refused",
            "Connections closed with an error before a request reached the application, by problem code",
            ["code"],
            registry=registry,
        )
        self.duration_of = children_of(self.request_duration)
        self.stage = children_of(self.stage_duration)
        self.result = children_of(self.slo_requests)
        for code in CONNECTION_REFUSALS:
            self.connections_refused.labels(code)
        for result in RESULTS:
            self.result(result)
        for reason in REFUSED_RELOADS:
            self.reloads_refused.labels(reason)
        for code in CLASSIFY_CODES:
            self.duration_of("/classify", code)
        for stage in STAGES:
            self.stage(stage)
            self.requests_cancelled.labels(stage)
        for reason in REJECTIONS:
            self.requests_rejected.labels(reason)

    def _define_images(self, registry: CollectorRegistry) -> None:
        """Updated by `classifier`, but those that failed by `api`."""
        self.images = Counter(
            "repvgg_images", "Images classified, by file format (or tensor)", ["format"], registry=registry
        )
        self.decode_failures = Counter(
            "repvgg_decode_failures", "Images that could not be decoded, by error code", ["reason"], registry=registry
        )
        self.images_failed = Counter(
            "repvgg_images_failed", "Images without an answer, by problem code", ["code"], registry=registry
        )
        for code in IMAGE_FAILURES:
            self.images_failed.labels(code)
        self.images_shared = Counter(
            "repvgg_images_shared",
            "Images by source of the answer: cached (hit), shared with another request (collapsed), computed (miss)",
            ["source"],
            registry=registry,
        )
        self.signals = {
            name: Histogram(f"repvgg_{name}", text, buckets=bounds, registry=registry)
            for name, (text, bounds) in SIGNALS.items()
        }
        self.predictions = Counter(
            "repvgg_predictions",
            f"Images by best class; classes beyond the first {MAX_LABELS} count as other",
            ["label"],
            registry=registry,
        )
        self.format = children_of(self.images)
        self.source = children_of(self.images_shared)
        self.prediction = children_of(self.predictions)
        for image_format in (*FORMATS, TENSOR):
            self.format(image_format.lower())
        for source in SOURCES:
            self.source(source)
        for reason in DECODE_FAILURES:
            self.decode_failures.labels(reason)
        self.prediction(OTHER_LABEL)
        self.doubt = DoubtMetrics(registry)
        self.feedback = FeedbackMetrics(registry)
        self.kept = KeptMetrics(registry)

    def _define_batching(self, registry: CollectorRegistry) -> None:
        """Updated by `batching`. Gauges are computed when read, predicted_wait by `classifier`."""
        self.batch_size = Summary("repvgg_batch_size", "Images per batch given to the engine", registry=registry)
        self.queue_depth = Gauge("repvgg_queue_depth", "Images waiting for the engine", registry=registry)
        self.predicted_wait = Gauge(
            "repvgg_predicted_wait_seconds",
            "Predicted wait of an image that arrives now until its batch starts",
            registry=registry,
        )
        self.engine_busy = Counter(
            "repvgg_engine_busy_seconds", "Time that engine slots have spent on batches", registry=registry
        )
        self.engine_slots = Gauge("repvgg_engine_slots", "Engine slots, by state", ["state"], registry=registry)
        for state in SLOT_STATES:
            self.engine_slots.labels(state)
        self.batch_expected = Gauge(
            "repvgg_batch_expected_seconds",
            "Expected duration of a batch of one image, and of the largest batch",
            ["images"],
            registry=registry,
        )

    def _define_identity(self, registry: CollectorRegistry) -> None:
        """Set by `classifier` once the model is open."""
        self.model_info = Gauge(
            "repvgg_model_info",
            "The served bundle; sha256 is that of its manifest, which contains all other checksums",
            ["name", "version", "engine", "precision", "sha256"],
            registry=registry,
        )
        self.golden_delta = Gauge(
            "repvgg_golden_delta",
            "Largest difference between the serving engine's logits and the golden logits",
            registry=registry,
        )
        self.golden_tolerance = Gauge(
            "repvgg_golden_tolerance", "Largest difference allowed; 0 if it was not measured", registry=registry
        )
        build_info = Info("repvgg_build", "This program", registry=registry)
        build_info.info({"version": program_version(), "python": platform.python_version()})
        ProcessCollector(registry=registry)  # process_*: CPU time, memory, open files, start time

    def _define_life(self, registry: CollectorRegistry) -> None:
        """Updated by `api.lifecycle`; engine_restarts by `batching`, older_bundle by `classifier`."""
        self.life = LifeMetrics(registry)
        self.workers_wanted = Gauge("repvgg_workers_wanted", "Processes that should serve", registry=registry)
        self.workers_serving = Gauge("repvgg_workers_serving", "Processes that serve a model", registry=registry)
        self.engine_restarts = Counter(
            "repvgg_engine_restarts", "Attempts to start an engine again, successful or not", registry=registry
        )

    def expect_labels(self, labels: Iterable[str]) -> None:
        """Create the children of `predictions` for the bundle's first MAX_LABELS labels."""
        self._known_labels = frozenset(list(labels)[:MAX_LABELS])
        for label in self._known_labels:
            self.prediction(label)

    def observe_stages(self, **seconds: float) -> None:
        """Durations of one image's stages."""
        for stage, duration_s in seconds.items():
            self.stage(stage).observe(duration_s)

    def count_prediction(self, label: str, **signals: float) -> None:
        """Count one image's best class and its drift signals; an unexpected label counts as `other`."""
        self.prediction(label if label in self._known_labels else OTHER_LABEL).inc()
        for name, value in signals.items():
            self.signals[name].observe(value)

    async def watch_event_loop(self, period_s: float = 0.5) -> None:
        """Measure the lag until cancelled."""
        while True:
            asked = time.monotonic() + period_s
            await asyncio.sleep(period_s)
            self.event_loop_lag.observe(max(0.0, time.monotonic() - asked))


def program_version() -> str:
    """The installed version, or `unknown` if the source tree is not installed."""
    try:
        return version("repvgg")
    except PackageNotFoundError:
        return "unknown"
