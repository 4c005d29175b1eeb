"""What tells that other images come than before, or that the model knows less what to make of them.

1. each signal is a histogram of the images, so that two weeks can be compared;
2. an answer that was shared or kept counts like any other.

| signal | a shift says |
|---|---|
| top1_score | the model is less sure (or surer) of its best class than it was |
| prediction_entropy | it hesitates between more classes (or fewer), also where the best one's score is the same |
| input_mean | images are darker (below 0) or brighter than those trained on; far off: wrongly normalised tensors |
| input_std | images are flatter (below 1) or harder than those trained on; near 0: one colour, a covered camera |
| image_pixels | clients send another size, thumbnails for instance |
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Name -> what it is, and the upper bounds of its buckets: fine where a trained network's images lie.
SIGNALS: dict[str, tuple[str, tuple[float, ...]]] = {
    "top1_score": (
        "Score of the best class",
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
    ),
    "prediction_entropy": (
        "Entropy of the scores, as a part of the greatest possible: 0 is sure of one class, 1 has all alike",
        (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0),
    ),
    "input_mean": (
        "Mean of the normalised input: 0 for images as bright as those trained on",
        (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0),
    ),
    "input_std": (
        "Standard deviation of the normalised input: 1 for as much contrast as in those trained on",
        (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0),
    ),
    "image_pixels": (
        "Pixels of the images as they came",
        (*(4.0**power for power in range(5, 13)),),  # 32 x 32 to 4096 x 4096
    ),
}
# Pixels along a side that are looked at: a photo's mean and deviation are known from these, in 9 us instead of 55.
SAMPLED_SIDE = 32


def input_signals(tensor: NDArray[np.float32]) -> dict[str, float]:
    """float32 (3, S, S) -> `input_mean` and `input_std`, of every S / SAMPLED_SIDE-th pixel."""
    step = max(1, tensor.shape[1] // SAMPLED_SIDE)
    values = tensor[:, ::step, ::step].ravel()
    mean = float(values.mean())
    variance = float(values @ values) / values.size - mean * mean  # below 0 by rounding, for one colour
    return {"input_mean": mean, "input_std": math.sqrt(max(0.0, variance))}
