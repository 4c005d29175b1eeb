"""Logits that are not finite never become an accuracy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError


def check_finite(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same logits. Raises TrainingError for any that is not finite: sorted, they would count as some class."""
    if bad := int(np.count_nonzero(~np.isfinite(logits).all(axis=1))):
        raise TrainingError(
            f"the logits of {bad} of {len(logits)} images are not finite, so there is no accuracy: the weights "
            "overflowed or are not numbers; evaluate an earlier checkpoint, or lower base_lr or amp_level"
        )
    return logits
