"""What tells that other images come than before, or that the model knows less what to make of them.

1. each signal is a histogram of the images, so that two weeks can be compared;
2. an answer that was shared or kept counts like any other.

| signal | a shift says |
|---|---|
| top1_score | the model is less sure (or surer) of its best class than it was |
| prediction_entropy | it hesitates between more classes (or fewer), also where the best one's score is the same |
| input_brightness | another light, another camera; over 1: tensors that are not normalised |
| input_contrast | flatter or harder images; near 0: one colour, a covered camera |
| image_pixels | clients send another size, thumbnails for instance |
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.manifest import Preprocess

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
    "input_brightness": (
        "Mean of the network's input before it is normalised: 0 is black, 1 is white",
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    ),
    "input_contrast": (
        "Standard deviation of the network's input before it is normalised: 0 is one colour, 0.5 black and white",
        (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5),
    ),
    "image_pixels": (
        "Pixels of the images as they came",
        (*(4.0**power for power in range(5, 13)),),  # 32 x 32 to 4096 x 4096
    ),
}
# Pixels along a side that are looked at: enough to know mean and deviation of a photo.
SAMPLED_SIDE = 32


def input_signals(tensor: NDArray[np.float32], spec: Preprocess) -> dict[str, float]:
    """float32 (3, S, S) -> `input_brightness` and `input_contrast`, of every S / SAMPLED_SIDE-th pixel along a side."""
    step = max(1, tensor.shape[1] // SAMPLED_SIDE)
    sampled = tensor[:, ::step, ::step] * np.asarray(spec.std, np.float32)[:, None, None]
    sampled += np.asarray(spec.mean, np.float32)[:, None, None]
    values = sampled.ravel()
    mean = float(values.mean())
    variance = float(values @ values) / values.size - mean * mean  # below 0 by rounding, for one colour
    # What is darker than black comes from wrong tensors only, and a histogram's sum must not fall.
    return {"input_brightness": max(0.0, mean), "input_contrast": math.sqrt(max(0.0, variance))}
