"""Feedback on answers, as metrics: the true label next to the predicted one.

1. no feedback makes the number of series grow: labels are those of the bundle, the first MAX_LABELS of them;
2. accuracy and coverage are counted by the true class, so that a rare class is not lost in the mean;
3. images of none of the classes are counted separately, with an empty label: no answer to them could be right.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

from models.manifest import Manifest
from service.observe.doubt import as_word

MAX_LABELS = 1000
OTHER_LABEL = "other"
FOREIGN_LABEL = ""
Result = Literal["right", "wrong", "foreign"]
RESULTS: tuple[Result, ...] = ("right", "wrong", "foreign")
DROPPED = ("busy", "failed", "too_large", "tensor")


class FeedbackMetrics:
    """Updated by `feedback.answered`. Children exist from the first answer of a bundle that is remembered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        by_class = ["model", "version", "label"]
        self._images = Counter(
            "repvgg_feedback",
            "Images that got feedback, by their true label and whether that was the answer",
            [*by_class, "result"],
            registry=registry,
        )
        self._confident = Counter(
            "repvgg_feedback_confident",
            "Images that got feedback, by whether the answer was confident, of bundles with a threshold",
            ["model", "version", "confident", "result"],
            registry=registry,
        )
        self._sets = Counter(
            "repvgg_feedback_sets",
            "Prediction sets that got feedback, by the true label and whether they held it",
            [*by_class, "result"],
            registry=registry,
        )
        self._promised = Counter(
            "repvgg_feedback_promised",
            "Sum of the coverages requested for these sets: this many of them should contain the true label",
            by_class,
            registry=registry,
        )
        self._labels: dict[tuple[str, str], frozenset[str]] = {}

    def expect(self, manifest: Manifest, labels: Sequence[str]) -> None:
        model, doubts = (manifest.name, manifest.version), manifest.confidence is not None
        self._labels[model] = known = frozenset(labels[:MAX_LABELS])
        for label in known:
            for result in ("right", "wrong"):
                self._images.labels(*model, label, result)
            for result in ("held", "missed") if doubts else ():
                self._sets.labels(*model, label, result)
        for word, outcome in product(("true", "false"), RESULTS if doubts else ()):
            self._confident.labels(*model, word, outcome)

    def count(self, manifest: Manifest, label: str | None, result: Result, confident: bool | None) -> None:
        """`label`: the true one, None for none of the classes; `confident`: None without a threshold."""
        model = (manifest.name, manifest.version)
        self._images.labels(*model, self._name(model, label), result).inc()
        if confident is not None:
            self._confident.labels(*model, as_word(confident), result).inc()

    def count_set(self, manifest: Manifest, label: str | None, *, held: bool, coverage: float) -> None:
        """Not of foreign images, whose label is in no set: nothing is promised for them."""
        if label is None:
            return
        model = (manifest.name, manifest.version)
        name = self._name(model, label)
        self._sets.labels(*model, name, "held" if held else "missed").inc()
        self._promised.labels(*model, name).inc(coverage)

    def _name(self, model: tuple[str, str], label: str | None) -> str:
        if label is None:
            return FOREIGN_LABEL
        return label if label in self._labels.get(model, ()) else OTHER_LABEL


class KeptMetrics:
    """Updated by `feedback.keeper`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.images = Counter("repvgg_kept_images", "Images that were kept for labelling", registry=registry)
        self.deleted = Counter(
            "repvgg_kept_deleted", "Kept images that were deleted to make room for newer ones", registry=registry
        )
        self.dropped = Counter(
            "repvgg_kept_dropped",
            "Images that could not be kept, by reason: the disk is too slow (busy) or failed, the image "
            "is too_large for the folder, or was sent as a tensor",
            ["reason"],
            registry=registry,
        )
        for reason in DROPPED:
            self.dropped.labels(reason)
        self.bytes = Gauge("repvgg_kept_bytes", "Size of the folder of kept images", registry=registry)
