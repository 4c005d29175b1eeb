"""Signals that inputs have shifted, or that the model is less certain about them.

1. each signal is a histogram over images, so that two weeks can be compared;
2. answers that were shared or cached count like any other.

| signal | meaning of a shift |
|---|---|
| top1_score | the model is less (or more) certain of its best class |
| prediction_entropy | it hesitates between more (or fewer) classes, even if the best score is the same |
| input_brightness | different lighting or another camera; above 1: tensors that are not normalised |
| input_contrast | flatter or harsher images; near 0: a single colour, a covered camera |
| image_pixels | clients send another image size, for instance thumbnails |
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.manifest import Preprocess

# Name -> description, and upper bounds of the buckets, which are fine where a trained network's values lie.
SIGNALS: dict[str, tuple[str, tuple[float, ...]]] = {
    "top1_score": (
        "Score of the best class",
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
    ),
    "prediction_entropy": (
        "Entropy of the scores as a share of its maximum: 0 is certain of one class, 1 is undecided between all",
        (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0),
    ),
    "input_brightness": (
        "Mean of the network's input before normalisation: 0 is black, 1 is white",
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    ),
    "input_contrast": (
        "Standard deviation of the network's input before normalisation: 0 is one colour, 0.5 is black and white",
        (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5),
    ),
    "image_pixels": (
        "Pixels of the images as received",
        (*(4.0**power for power in range(5, 13)),),  # 32 x 32 to 4096 x 4096
    ),
}
# Pixels sampled along a side: enough for the mean and deviation of a photo.
SAMPLED_SIDE = 32


def input_signals(tensor: NDArray[np.float32], spec: Preprocess) -> dict[str, float]:
    """float32 (3, S, S) -> `input_brightness` and `input_contrast`, of every S / SAMPLED_SIDE-th pixel each way."""
    step = max(1, tensor.shape[1] // SAMPLED_SIDE)
    sampled = tensor[:, ::step, ::step] * np.asarray(spec.std, np.float32)[:, None, None]
    sampled += np.asarray(spec.mean, np.float32)[:, None, None]
    values = sampled.ravel()
    mean = float(values.mean())
    variance = float(values @ values) / values.size - mean * mean  # rounding may make it negative for a single colour
    # Only invalid tensors are darker than black, and the sum of a histogram must never decrease.
    return {"input_brightness": max(0.0, mean), "input_contrast": math.sqrt(max(0.0, variance))}
