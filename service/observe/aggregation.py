"""Combines the metrics of several processes into those of one service.

1. counters, histograms and summaries are summed, including those of ended processes, so that none ever decreases;
2. gauges come from running processes only: they are summed, except those in MAXIMUM, where the largest value counts;
3. nothing is lost: info metrics, exemplars (the newest) and creation times (the earliest) are kept.

A snapshot holds the metrics of one process: a list of families, as lists and dictionaries that fit into JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample

# A sum over processes makes no sense for a wait, a point in time or a constant.
MAXIMUM = frozenset(
    {
        *("repvgg_predicted_wait_seconds", "repvgg_batch_expected_seconds"),
        *("repvgg_confident_share_expected", "repvgg_kept_bytes"),
        *("repvgg_golden_delta", "repvgg_golden_tolerance", "repvgg_objective_seconds"),
        *("repvgg_model_info", "repvgg_build"),
        *("repvgg_workers_wanted", "repvgg_older_bundle"),
        *("process_start_time_seconds", "process_max_fds"),
    }
)
GAUGES = frozenset({"gauge", "info"})

Snapshot = list[dict[str, Any]]


def snapshot(collector: Collector) -> Snapshot:
    """The current metrics of `collector`."""
    return [
        {
            "name": family.name,
            "documentation": family.documentation,
            "type": family.type,
            "samples": [[sample.name, sample.labels, sample.value, sample.exemplar] for sample in family.samples],
        }
        for family in collector.collect()
    ]


def without_gauges(families: Snapshot) -> Snapshot:
    """What remains of a process that has ended."""
    return [family for family in families if family["type"] not in GAUGES]


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Combine the snapshots. A child that the first one does not have comes after those it has."""
    families: dict[str, dict[str, Any]] = {}
    children: dict[tuple[str, frozenset[tuple[str, str]]], list[Any]] = {}
    for family in (family for families_of_one in snapshots for family in families_of_one):
        merged = families.setdefault(family["name"], family | {"samples": []})
        for name, labels, value, exemplar in family["samples"]:
            key = (name, frozenset(labels.items()))
            if (known := children.get(key)) is None:
                children[key] = child = [name, labels, value, exemplar]
                merged["samples"].append(child)
            else:
                known[2] = _combiner(family["name"], name)([known[2], value])
                known[3] = _newest(known[3], exemplar)
    return list(families.values())


def _combiner(family: str, sample: str) -> Callable[[Sequence[float]], float]:
    if family in MAXIMUM:
        return max
    return min if sample.endswith("_created") else sum


def _newest(one: list[Any] | None, other: list[Any] | None) -> list[Any] | None:
    """The newer of two exemplars `[labels, value, timestamp]`."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda exemplar: exemplar[2])


class MergedMetrics(Collector):
    """The merged `snapshots`, to be exposed instead of a registry."""

    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        self._families = merge(snapshots)

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family["name"], family["documentation"], family["type"])
            for name, labels, value, exemplar in family["samples"]:
                metric.samples.append(Sample(name, labels, value, None, exemplar and Exemplar(*exemplar)))
            yield metric
