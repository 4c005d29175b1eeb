"""With a real classifier: tests/service/api/test_doubt.py."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from models.manifest import Confidence, Manifest
from models.store import open_bundle
from service.observe.metrics import Metrics


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Without a threshold."""
    return open_bundle("repvgg-tiny-cifar10").manifest.model_copy(update={"confidence": None})


@pytest.fixture(scope="module")
def doubting(manifest: Manifest) -> Manifest:
    figures: dict[str, Any] = {"accuracy": 0.9, "answered": 0.6, "kept": 0.8, "quantiles": {0.9: 0.6}}
    fitted = Confidence(fitted_at="2026-11-29T12:00:00Z", images=1000, precision="fp32", threshold=0.5, **figures)
    return manifest.model_copy(update={"confidence": fitted, "version": "100"})


def samples(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    """(name, version, confident) -> value."""
    return {
        (one.name, one.labels.get("version", ""), one.labels.get("confident", "")): one.value
        for family in registry.collect()
        for one in family.samples
        if one.name.startswith("repvgg_confident") and not one.name.endswith("_created")
    }


def test_the_share_of_confident_answers_stands_beside_that_of_the_fit(doubting: Manifest) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry).doubt
    metrics.expect(doubting)
    assert samples(registry) == {
        ("repvgg_confident_share_expected", "100", ""): 0.6,
        ("repvgg_confident_answers_total", "100", "true"): 0,
        ("repvgg_confident_answers_total", "100", "false"): 0,
    }
    for confident in (True, True, False):
        metrics.count(doubting, confident, None)
    assert samples(registry)["repvgg_confident_answers_total", "100", "true"] == 2
    assert samples(registry)["repvgg_confident_answers_total", "100", "false"] == 1


def test_a_bundle_without_a_threshold_promises_nothing(manifest: Manifest, doubting: Manifest) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry).doubt
    metrics.expect(manifest)
    metrics.count(manifest, None, None)
    assert samples(registry) == {}
    metrics.expect(doubting)
    metrics.expect(manifest)  # a reload
    assert ("repvgg_confident_share_expected", "100", "") not in samples(registry)


def test_only_asked_for_sets_are_measured(doubting: Manifest) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry).doubt
    for size in (None, 1, 4):
        metrics.count(doubting, True, size)
    assert registry.get_sample_value("repvgg_prediction_set_size_count") == 2
    assert registry.get_sample_value("repvgg_prediction_set_size_sum") == 5
