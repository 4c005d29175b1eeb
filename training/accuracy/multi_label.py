"""How good scores are where several labels may apply to an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.scores.topk import sigmoid

NO_THRESHOLD = 0.5  # of a label that no image shows


@dataclass(frozen=True)
class LabelScores:
    """Logits (N, K) of images, and `truths` (N, K), 1 where a label applies."""

    logits: NDArray[np.float32]
    truths: NDArray[np.float32]

    def hits(self, k: int) -> float:
        """The share of images of which one of the k best labels applies."""
        best = np.argsort(-self.logits, axis=1, kind="stable")[:, :k]
        return float(np.take_along_axis(self.truths, best, 1).any(axis=1).mean())

    def average_precisions(self, names: Sequence[str]) -> dict[str, float]:
        """Of each label that applies to an image."""
        columns = zip(names, self.logits.T, self.truths.T, strict=True)
        return {name: average_precision(logits, truth) for name, logits, truth in columns if truth.any()}

    @property
    def mean_average_precision(self) -> float:
        found = self.average_precisions([str(index) for index in range(self.truths.shape[1])])
        return float(np.mean(list(found.values()))) if found else 0.0

    @property
    def thresholds(self) -> list[float]:
        """For each label the score from which it applies with the best F1 on these images."""
        return [_threshold(scores, truth) for scores, truth in zip(sigmoid(self.logits).T, self.truths.T, strict=True)]


def average_precision(scores: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """(N,) scores and truths, at least one of them 1 -> precision times the growth of recall, summed over thresholds.

    Images of equal score count together.
    """
    precision, recall, _ = _curve(scores, truth)
    return float((precision * np.diff(recall, prepend=0.0)).sum())


def _threshold(scores: NDArray[np.float64], truth: NDArray[np.float32]) -> float:
    if not truth.any():
        return NO_THRESHOLD
    precision, recall, values = _curve(scores, truth)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    best = int(f1.argmax())
    below = values[best + 1] if best + 1 < len(values) else 0.0
    return float((values[best] + below) / 2)  # in the middle of the gap


def _curve(
    scores: NDArray[np.floating], truth: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """-> precision, recall and score at each different score, falling."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    right = np.cumsum(truth[order], dtype=np.float64)[ends]
    return right / (ends + 1), right / right[-1], scores[order][ends].astype(np.float64)
