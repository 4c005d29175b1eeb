from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from service.observe.drift import SIGNALS
from service.observe.metrics import BUCKETS_S, MAX_LABELS, Metrics

# Name, type and children as they are promised.
PROMISED = {
    "repvgg_request_duration_seconds": ("histogram", {"route", "code"}),
    "repvgg_stage_duration_seconds": ("histogram", {"stage"}),
    "repvgg_batch_size": ("summary", set()),
    "repvgg_queue_depth": ("gauge", set()),
    "repvgg_predicted_wait_seconds": ("gauge", set()),
    "repvgg_requests_rejected_total": ("counter", {"reason"}),
    "repvgg_requests_cancelled_total": ("counter", {"stage"}),
    "repvgg_engine_busy_seconds_total": ("counter", set()),
    "repvgg_engine_slots": ("gauge", {"state"}),
    "repvgg_images_total": ("counter", {"format"}),
    "repvgg_decode_failures_total": ("counter", {"reason"}),
    "repvgg_images_failed_total": ("counter", {"code"}),
    "repvgg_slo_requests_total": ("counter", {"result"}),
    "repvgg_connections_refused_total": ("counter", {"code"}),
    "repvgg_objective_seconds": ("gauge", set()),
    "repvgg_reloads_refused_total": ("counter", {"reason"}),
    "repvgg_log_lines_dropped_total": ("counter", set()),
    "repvgg_event_loop_lag_seconds": ("histogram", set()),
    "repvgg_top1_score": ("histogram", set()),
    "repvgg_predictions_total": ("counter", {"label"}),
    "repvgg_prediction_entropy": ("histogram", set()),
    "repvgg_input_brightness": ("histogram", set()),
    "repvgg_input_contrast": ("histogram", set()),
    "repvgg_image_pixels": ("histogram", set()),
    "repvgg_prediction_set_size": ("histogram", set()),
    "repvgg_golden_delta": ("gauge", set()),
    "repvgg_golden_tolerance": ("gauge", set()),
    "repvgg_build_info": ("gauge", {"version", "python"}),
}


def families(registry: CollectorRegistry) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}


def test_every_promised_metric_exists_at_0_from_the_start() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    found = families(registry)
    for name, (kind, labels) in PROMISED.items():
        family = found[name.removesuffix("_total")]
        assert family.type == kind
        assert family.samples, name
        for sample in family.samples:
            assert labels <= set(sample.labels)
            if not sample.name.endswith(("_created", "_info")):
                assert sample.value == 0, sample


def test_the_model_is_known_only_when_it_is_open() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    labels = {"name": "n", "version": "1", "engine": "fake", "precision": "fp32", "sha256": "0" * 64}
    assert registry.get_sample_value("repvgg_model_info", labels) is None
    metrics.model_info.labels(**labels).set(1)
    assert registry.get_sample_value("repvgg_model_info", labels) == 1


@pytest.mark.parametrize(
    ("name", "label", "children"),
    [
        ("repvgg_stage_duration_seconds_count", "stage", {"read", "decode", "queue", "infer", "respond"}),
        ("repvgg_requests_rejected_total", "reason", {"overload", "deadline", "limit", "draining"}),
        ("repvgg_images_total", "format", {"jpeg", "png", "webp", "gif", "bmp", "tiff", "tensor"}),
        ("repvgg_decode_failures_total", "reason", {"undecodable_image", "too_many_pixels"}),
        ("repvgg_engine_slots", "state", {"idle", "busy"}),
    ],
)
def test_children_exist_from_the_start(name: str, label: str, children: set[str]) -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    samples = [sample for metric in registry.collect() for sample in metric.samples if sample.name == name]
    assert {sample.labels[label] for sample in samples} == children


def test_histograms_are_for_times_drift_signals_and_the_sizes_of_prediction_sets() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    histograms = {metric.name for metric in registry.collect() if metric.type == "histogram"}
    others = {name for name in histograms if not name.endswith("_seconds")}
    assert others == {*(f"repvgg_{name}" for name in SIGNALS), "repvgg_prediction_set_size"}


def test_the_buckets_straddle_the_objective() -> None:
    assert list(BUCKETS_S) == sorted(set(BUCKETS_S))
    assert (BUCKETS_S[0], BUCKETS_S[-1]) == (0.0005, 10.0)
    assert 0.1 in BUCKETS_S
    assert sum(bucket <= 0.1 for bucket in BUCKETS_S) > len(BUCKETS_S) / 2


def test_no_label_makes_the_number_of_series_grow() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.expect_labels(f"class {number}" for number in range(MAX_LABELS + 5))
    for number in range(MAX_LABELS + 5):
        metrics.count_prediction(f"class {number}", top1_score=0.5)
    samples = [s for metric in registry.collect() for s in metric.samples if s.name == "repvgg_predictions_total"]
    assert len(samples) == MAX_LABELS + 1
    assert registry.get_sample_value("repvgg_predictions_total", {"label": "other"}) == 5
    assert registry.get_sample_value("repvgg_predictions_total", {"label": "class 0"}) == 1
    assert registry.get_sample_value("repvgg_top1_score_count") == MAX_LABELS + 5


def test_the_registry_is_the_one_passed_in() -> None:
    """Two in one process, as tests and reloads make them, do not collide."""
    first, second = CollectorRegistry(), CollectorRegistry()
    Metrics(first).count_prediction("x", top1_score=1.0)
    Metrics(second)
    assert second.get_sample_value("repvgg_predictions_total", {"label": "other"}) == 0


def test_openmetrics_can_be_written() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.request_duration.labels("/classify", "200").observe(0.01, exemplar={"request_id": "abc"})
    assert b'# {request_id="abc"}' in generate_openmetrics(registry)


def test_the_lag_of_the_event_loop_is_measured(run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)

    async def scenario() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(metrics.watch_event_loop(period_s=0.0), timeout=0.05)
        assert (registry.get_sample_value("repvgg_event_loop_lag_seconds_count") or 0) > 0

    run(scenario())


def test_the_process_is_measured_too() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"):
        assert (registry.get_sample_value(name) or 0) > 0, name
