"""The temperature that makes scores match accuracy (Guo et al. 2017, "On Calibration of Modern Neural Networks",
section 4.2).

1. the fitted temperature maximises the likelihood of the true labels, and changes no label;
2. if there is no such temperature (for instance if every image is right), none is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from models.fields import COLDEST, HOTTEST
from models.scores.topk import softmax

STEPS = 40  # of the bisection, which shrink the first interval to 1e-12 of its length
ROWS = 4096  # computed at once: in float64 the scores of 50,000 images and 1000 classes take 400 MB, several times over


def chunks(logits: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """(N, K) -> at most ROWS rows at a time."""
    return (logits[row : row + ROWS] for row in range(0, len(logits), ROWS))


def fit_temperature(logits: NDArray[np.float32], truths: Sequence[int]) -> float | None:
    """(N, K) logits, true classes -> the temperature with the smallest negative log-likelihood; None if there is none.

    The log-likelihood is concave in 1 / temperature, so its slope changes sign once, which bisection finds.
    """

    def slope(log_inverse: float) -> float:
        temperature = math.exp(-log_inverse)
        return true_logits - sum(float((softmax(rows, temperature) * rows).sum()) for rows in chunks(logits))

    true_logits = float(logits[np.arange(len(truths)), list(truths)].sum(dtype=np.float64))
    low, high = -math.log(HOTTEST), -math.log(COLDEST)
    if not slope(low) > 0 > slope(high):
        return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return math.exp(-(low + high) / 2)
