"""Logits -> probabilities -> the k best labels.

1. scores sum to 1 over all classes, and a shift of all logits changes none of them;
2. predictions are sorted by falling score, equal ones by class_id;
3. logits that are not finite, or not one for each label, never become predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Prediction(NamedTuple):
    label: str
    class_id: int
    score: float


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """(..., K) logits -> probabilities over all K classes, float64 so that they sum to 1 within 1e-12."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def top_k(logits: NDArray[np.float32], labels: Sequence[str], k: int) -> list[Prediction]:
    """(K,) logits -> the k best. Raises ValueError for a k out of 1..K and for logits as in promise 3."""
    if not 1 <= k <= len(labels):
        raise ValueError(f"k must be in 1..{len(labels)}, not {k}")
    if logits.shape != (len(labels),):
        raise ValueError(f"{len(labels)} labels need as many logits, not {logits.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("the logits are not finite")
    scores = softmax(logits)
    best = np.argsort(-scores, kind="stable")[:k]
    return [Prediction(labels[i], int(i), float(scores[i])) for i in best]
