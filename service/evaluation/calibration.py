"""Calibration: are predictions with a score of 0.8 right in 80 % of the cases?

1. the error of a perfectly calibrated model is 0; if it is always certain and wrong half the time, the error is 0.5;
2. the temperature next to it is fitted on the same images: see models.scores.temperature.

Source: Guo, Pleiss, Sun, Weinberger 2017, "On Calibration of Modern Neural Networks": the expected calibration error
(equation 3, of 15 equal bins), reliability diagrams (figure 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.scores.temperature import chunks, fit_temperature
from models.scores.topk import softmax

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The images whose best score lies in one of BINS equal intervals: its mean, and their accuracy (both 0..1)."""

    images: int
    score: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """`ece` is the error with the bundle's `temperature`; the fitted values are None if no temperature fits."""

    images: int
    ece: float
    temperature: float
    fitted_temperature: float | None
    fitted_ece: float | None

    def __str__(self) -> str:
        now = f"calibration of {self.images} images: ECE {self.ece:.2%} ({BINS} bins)"
        if self.fitted_temperature is None or self.fitted_ece is None:
            return f"{now}; no temperature fits: use more images, with both right and wrong answers"
        return (
            f"{now} with temperature {self.temperature:.4g}, {self.fitted_ece:.2%} with {self.fitted_temperature:.4g}, "
            "fitted on these images"
        )


@dataclass
class _Rows:
    logits: list[NDArray[np.float32]] = field(default_factory=list)
    embeddings: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, logits: NDArray[np.float32], embedding: NDArray[np.float32] | None) -> None:
        self.logits.append(logits)
        if embedding is not None:
            self.embeddings.append(embedding)


@dataclass
class Scores:
    """The logits of each image, its embedding if all have one, and its true class; scores are served with
    `temperature`. `labels[class_id]`."""

    labels: Sequence[str]
    temperature: float
    truths: list[int] = field(default_factory=list)
    _known: _Rows = field(default_factory=_Rows)
    _foreign: _Rows = field(default_factory=_Rows)

    def add(self, truth: str, logits: NDArray[np.float32], embedding: NDArray[np.float32] | None = None) -> None:
        """An image: its true label, logits (K,) and embedding (C,). If several classes have that label, the best one
        counts."""
        candidates = (class_id for class_id, label in enumerate(self.labels) if label == truth)
        self.truths.append(max(candidates, key=lambda class_id: float(logits[class_id])))
        self._known.add(logits, embedding)

    def add_foreign(self, logits: NDArray[np.float32], embedding: NDArray[np.float32] | None = None) -> None:
        """An image of none of the classes."""
        self._foreign.add(logits, embedding)

    @property
    def foreign_logits(self) -> NDArray[np.float32]:
        """(M, K)"""
        return np.asarray(self._foreign.logits, np.float32).reshape(-1, len(self.labels))

    @property
    def logits(self) -> NDArray[np.float32]:
        """(N, K)"""
        return np.asarray(self._known.logits, np.float32).reshape(-1, len(self.labels))

    @property
    def embeddings(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """(N, C) and those of foreign images (M, C); None if an image has none."""
        both = self._known, self._foreign
        if any(len(rows.embeddings) != len(rows.logits) or not rows.logits for rows in both):
            return None
        known, foreign = (np.asarray(rows.embeddings, np.float32) for rows in both)
        return known, foreign

    def bins(self, temperature: float) -> list[Bin]:
        """The bins with another temperature."""
        if not self.truths:
            return []
        logits = self.logits
        best = np.concatenate([softmax(rows, temperature).max(axis=1) for rows in chunks(logits)])
        right = logits.argmax(axis=1) == self.truths
        numbers = np.clip(np.ceil(best * BINS).astype(int) - 1, 0, BINS - 1)
        return [_bin(best[numbers == number], right[numbers == number]) for number in range(BINS)]

    def calibration(self) -> Calibration:
        fitted = fit_temperature(self.logits, self.truths)
        return Calibration(
            len(self.truths),
            expected_error(self.bins(self.temperature)),
            self.temperature,
            fitted,
            None if fitted is None else expected_error(self.bins(fitted)),
        )


def _bin(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> Bin:
    return Bin(len(scores), float(scores.mean()), float(right.mean())) if len(scores) else Bin(0, 0.0, 0.0)


def expected_error(bins: Sequence[Bin]) -> float:
    """The mean distance between score and accuracy of a bin over all images, 0..1; 0 without images."""
    images = sum(one.images for one in bins)
    return sum(one.images * abs(one.accuracy - one.score) for one in bins) / images if images else 0.0
