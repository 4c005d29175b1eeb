"""How confident the answers are, as metrics: for bundles with a fitted threshold, and for requested sets of labels.

1. the share of confident answers is next to that of the fit, so that an alert can compare them;
2. it is the network's own opinion: a caller's labels and priors say nothing about drift.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from models.manifest import Manifest

SET_SIZES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


def as_word(value: bool) -> str:
    """As the value of a label."""
    return "true" if value else "false"


class DoubtMetrics:
    """Updated by `classifier`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._confident = Counter(
            "repvgg_confident_answers",
            "Images by whether the network is confident of its best class, of bundles with a fitted threshold",
            ["model", "version", "confident"],
            registry=registry,
        )
        self._expected = Gauge(
            "repvgg_confident_share_expected",
            "Share of confident answers among the images that the served bundle was fitted on",
            ["model", "version"],
            registry=registry,
        )
        self._set_size = Histogram(
            "repvgg_prediction_set_size",
            "Labels in a prediction set, for images with a requested coverage",
            buckets=SET_SIZES,
            registry=registry,
        )

    def expect(self, manifest: Manifest) -> None:
        """This bundle serves from now on."""
        self._expected.clear()
        if manifest.confidence is not None:
            self._expected.labels(manifest.name, manifest.version).set(manifest.confidence.answered)
            for word in ("true", "false"):
                self._confident.labels(manifest.name, manifest.version, word)

    def count(self, manifest: Manifest, confident: bool | None, set_size: int | None) -> None:
        """One image. `confident`: None without a threshold; `set_size`: None if no coverage was requested."""
        if confident is not None:
            self._confident.labels(manifest.name, manifest.version, as_word(confident)).inc()
        if set_size is not None:
            self._set_size.observe(set_size)
