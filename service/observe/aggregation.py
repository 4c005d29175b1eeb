"""The metrics of several processes as those of one.

1. counters, histograms and summaries are added up, those of processes that are gone too: none ever goes back;
2. gauges are those of the processes that live: added up, but for those of LARGEST, of which the largest counts;
3. nothing is lost on the way: information, exemplars (the newest) and creation times (the first) are there.

A snapshot is what one process has: a list of families, in plain lists and dictionaries that JSON can hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample

# Of a wait, a moment or of what is known, the sum of several processes means nothing.
LARGEST = frozenset(
    {
        *("repvgg_predicted_wait_seconds", "repvgg_batch_expected_seconds"),
        *("repvgg_golden_delta", "repvgg_golden_tolerance"),
        *("repvgg_model_info", "repvgg_build"),
        *("process_start_time_seconds", "process_max_fds"),
    }
)
GAUGES = frozenset({"gauge", "info"})

Snapshot = list[dict[str, Any]]


def snapshot(collector: Collector) -> Snapshot:
    """What `collector` has now."""
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
    """What is left of a process that is gone."""
    return [family for family in families if family["type"] not in GAUGES]


def total(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The snapshots as one. A child that only some of them have comes after those of the first."""
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
                known[2] = _rule(family["name"], name)([known[2], value])
                known[3] = _newest(known[3], exemplar)
    return list(families.values())


def _rule(family: str, sample: str) -> Callable[[Sequence[float]], float]:
    if family in LARGEST:
        return max
    return min if sample.endswith("_created") else sum


def _newest(one: list[Any] | None, other: list[Any] | None) -> list[Any] | None:
    """Of two exemplars: `[labels, value, timestamp]`."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda exemplar: exemplar[2])


class Totals(Collector):
    """Of `snapshots`, in the place of a registry."""

    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        self._families = total(snapshots)

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family["name"], family["documentation"], family["type"])
            for name, labels, value, exemplar in family["samples"]:
                metric.samples.append(Sample(name, labels, value, None, exemplar and Exemplar(*exemplar)))
            yield metric
