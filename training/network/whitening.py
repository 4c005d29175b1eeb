"""Initial stem kernels computed from the training images: whitening filters. numpy only.

The kernels are the principal components of 3x3 patches, scaled to variance 1, together with their negatives so that the
ReLU after them loses no information. All directions of the input then get gradients of similar size, while random
kernels respond mostly to brightness, so a short run reaches a better result. After Page 2018, "How to train your
ResNet", part 8, and Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", section 3.2, who freeze these
kernels; here training continues to update them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

PATCH = 3
# In units of normalised pixels; directions of less variance are mostly noise, and are amplified less.
MIN_VARIANCE = 5e-4


def patch_covariance(images: Iterable[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Images (3, H, W) -> the second moments (27, 27) of all their 3x3 patches, channel by channel.

    Raises ValueError if there are no images.
    """
    total, count = np.zeros((3 * PATCH**2,) * 2), 0
    for image in images:
        windows = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH), axis=(1, 2))
        patches = windows.transpose(1, 2, 0, 3, 4).reshape(-1, len(total)).astype(np.float64)
        total, count = total + patches.T @ patches, count + len(patches)
    if not count:
        raise ValueError("whitening needs at least one image")
    return total / count


def whitening_kernels(covariance: NDArray[np.float64], width: int) -> NDArray[np.float32]:
    """The result of `patch_covariance` -> kernels (n, 3, 3, 3): the strongest components, then their negatives.

    n is even and at most `width` and 54, twice the number of components.
    """
    variances, components = np.linalg.eigh(covariance)  # in ascending order; the components are columns
    scaled = (components / np.sqrt(np.maximum(variances, 0) + MIN_VARIANCE)).T[::-1]
    kernels: NDArray[Any] = scaled[: width // 2].reshape(-1, 3, PATCH, PATCH)
    return np.concatenate([kernels, -kernels]).astype(np.float32)
