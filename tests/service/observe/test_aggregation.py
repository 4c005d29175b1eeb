from __future__ import annotations

import json

from prometheus_client import CollectorRegistry, Gauge, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.registry import Collector

from service.observe.aggregation import GAUGES, MAXIMUM, MergedMetrics, Snapshot, merge, snapshot, without_gauges
from service.observe.metrics import Metrics


def process(requests: int = 1, waiting: int = 0, wait_s: float = 0.0, code: str = "200") -> CollectorRegistry:
    """The metrics of a process that has answered some requests."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for number in range(requests):
        metrics.request_duration.labels("/classify", code).observe(0.01, {"request_id": f"{code}-{number}"})
        metrics.images.labels("jpeg").inc()
    metrics.queue_depth.set(waiting)
    metrics.predicted_wait.set(wait_s)
    metrics.model_info.labels("n", "1", "fake", "fp32", "0" * 64).set(1)
    return registry


def snapshots(*registries: Collector) -> list[Snapshot]:
    """As they arrive from other processes."""
    return json.loads(json.dumps([snapshot(registry) for registry in registries]))


def value(families: Snapshot, sample: str, **labels: str) -> float | None:
    return next(
        (
            found
            for family in families
            for name, of_sample, found, _ in family["samples"]
            if name == sample and labels.items() <= of_sample.items()
        ),
        None,
    )


def test_counters_and_histograms_are_added_up() -> None:
    families = merge(snapshots(process(2), process(3), process(4, code="404")))
    assert value(families, "repvgg_images_total", format="jpeg") == 9
    assert value(families, "repvgg_request_duration_seconds_count", code="200") == 5
    assert value(families, "repvgg_request_duration_seconds_bucket", code="200", le="0.01") == 5
    assert value(families, "repvgg_request_duration_seconds_count", code="404") == 4
    assert value(families, "repvgg_requests_rejected_total", reason="limit") == 0


def test_gauges_are_added_up_or_the_largest_counts() -> None:
    families = merge(snapshots(process(waiting=2, wait_s=0.5), process(waiting=3, wait_s=0.1)))
    assert value(families, "repvgg_queue_depth") == 5
    assert value(families, "repvgg_predicted_wait_seconds") == 0.5
    assert value(families, "repvgg_model_info", name="n") == 1
    assert value(families, "repvgg_build_info") == 1


def test_every_metric_in_maximum_exists() -> None:
    """Another name for one of them would be added up unnoticed."""
    gauges = {family.name for family in process().collect() if family.type in GAUGES}
    assert gauges >= MAXIMUM


def test_the_counts_of_an_ended_process_are_kept() -> None:
    gone = without_gauges(snapshot(process(2, waiting=9)))
    families = merge([snapshot(process(1, waiting=1)), gone])
    assert value(families, "repvgg_images_total", format="jpeg") == 3
    assert value(families, "repvgg_queue_depth") == 1


def test_the_first_creation_and_the_newest_exemplar_count() -> None:
    old, new = process(1), process(2)
    created = [value(snapshot(registry), "repvgg_images_created", format="jpeg") for registry in (old, new)]
    families = merge(snapshots(new, old))
    assert value(families, "repvgg_images_created", format="jpeg") == min(moment for moment in created if moment)
    assert b'# {request_id="200-1"} 0.01' in generate_openmetrics(MergedMetrics(snapshots(new, old)))


def test_one_process_is_written_as_by_its_own_registry() -> None:
    class Standing(Collector):
        """What a registry had at one moment: CPU time and memory do not stand still."""

        families = tuple(process(3).collect())

        def collect(self) -> tuple[Metric, ...]:
            return self.families

    totals = MergedMetrics(snapshots(Standing()))
    assert generate_latest(totals) == generate_latest(Standing())
    assert generate_openmetrics(totals) == generate_openmetrics(Standing())


def test_the_sum_is_valid_openmetrics() -> None:
    text = generate_openmetrics(MergedMetrics(snapshots(process(1), process(2, code="503"), process(0))))
    names = {family.name for family in parse_openmetrics(text.decode())}
    assert {"repvgg_request_duration_seconds", "repvgg_build", "repvgg_images"} <= names


def test_other_gauges_are_summed() -> None:
    registries = [CollectorRegistry() for _ in range(2)]
    for registry in registries:
        Gauge("repvgg_new", "Some gauge", registry=registry).set(1)
    assert value(merge(snapshots(*registries)), "repvgg_new") == 2
