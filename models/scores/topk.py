"""Logits -> probabilities -> the k best labels, and the certainty of the scores.

1. scores sum to 1 over all classes, and adding a constant to all logits does not change them; where several labels may
   apply, each score is that of its own label alone;
2. predictions are sorted by descending score, ties by class_id;
3. logits that are not finite, or not one per label, never become predictions;
4. a temperature never changes the order, and a temperature of 1 changes nothing;
5. classes of weight 0 get the score 0, however large their logits are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.manifest import Labels, Manifest


class Prediction(NamedTuple):
    """`applies`: whether the score reaches the label's threshold, if there are thresholds."""

    label: str
    class_id: int
    score: float
    applies: bool | None = None


def scores_of(
    logits: NDArray[np.float32], manifest: Manifest, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """(..., K) logits -> scores as the bundle's labels mean them; `weights` as in `softmax`; a multi-label bundle
    ignores them."""
    if manifest.labels.multi:
        return sigmoid(logits, manifest.temperature)
    return softmax(logits, manifest.temperature, weights)


def sigmoid(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    """(..., K) logits -> the independent probability of each label. Raises ValueError for logits that are not
    finite."""
    if not np.isfinite(logits).all():
        raise ValueError("the logits are not finite")
    halves: NDArray[np.float64] = np.tanh(logits.astype(np.float64) / (2 * temperature))  # never overflows
    return (1 + halves) / 2


def softmax(
    logits: NDArray[np.float32], temperature: float = 1.0, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """(..., K) logits -> probabilities over all K classes, float64 so that they sum to 1 within 1e-12.

    The logits are divided by `temperature`, the manifest's (Guo et al. 2017, "On Calibration of Modern Neural
    Networks", section 4.2). The probabilities are multiplied by `weights` (K,), not all 0, before they are made to sum
    to 1. Raises ValueError for logits that are not finite.
    """
    if not np.isfinite(logits).all():
        raise ValueError("the logits are not finite")
    possible = logits if weights is None else np.where(weights > 0, logits, -np.inf)
    shifted = possible.astype(np.float64) - possible.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted / temperature)
    if weights is not None:
        exponentials *= weights
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def doubt(scores: NDArray[np.float64]) -> float:
    """(K,) independent probabilities of labels -> their mean binary entropy in bits, 0..1."""
    surprise = sum(share * np.log2(np.maximum(share, np.finfo(np.float64).tiny)) for share in (scores, 1 - scores))
    return min(1.0, max(0.0, -float(surprise.mean())))


def entropy(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., K) probabilities -> (...): entropy as a fraction of its maximum. 0 is certain of one class, 1 has all
    equal."""
    surprise = -(scores * np.log(np.maximum(scores, np.finfo(np.float64).tiny))).sum(axis=-1)
    most = max(math.log(scores.shape[-1]), np.finfo(np.float64).tiny)
    fraction: NDArray[np.float64] = np.minimum(np.maximum(surprise / most, 0.0), 1.0)  # np.clip takes twice as long
    return fraction


def top_k(
    scores: NDArray[np.float64],
    labels: Sequence[str],
    k: int,
    weights: NDArray[np.float64] | None = None,
    kind: Labels | None = None,
) -> list[Prediction]:
    """(K,) probabilities -> the k best, without classes of weight 0. `kind`: what the manifest says about the labels;
    None: one applies. Raises ValueError for k outside 1..K and scores that do not fit the labels."""
    if not 1 <= k <= len(labels):
        raise ValueError(f"k must be in 1..{len(labels)}, not {k}")
    if scores.shape != (len(labels),):
        raise ValueError(f"{len(labels)} labels need as many scores, not {scores.shape}")
    if not (kind and kind.multi) and not math.isclose(scores.sum(), 1.0, abs_tol=1e-9):
        raise ValueError("these are not probabilities: apply softmax to the logits first")
    best = np.argsort(-scores, kind="stable")
    best = (best if weights is None else best[weights[best] > 0])[:k]
    thresholds = kind.thresholds if kind else None
    return [
        Prediction(
            labels[i], int(i), float(scores[i]), None if thresholds is None else bool(scores[i] >= thresholds[i])
        )
        for i in best
    ]
