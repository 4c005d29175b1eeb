"""First weights of the stem from the training images: whitening filters. numpy only.

The kernels are the principal components of 3x3 patches, each scaled to variance 1 and followed by its negative, so
that the ReLU after them loses nothing. Gradients then reach all directions of the input alike, where random kernels
see mostly brightness: a short run gets further. After Page 2018, "How to train your ResNet", part 8, and Jordan 2024,
"94% on CIFAR-10 in 3.29 seconds on a single GPU", section 3.2, who freeze them; here they are trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

PATCH = 3
LEAST_VARIANCE = 5e-4  # of a direction that is amplified fully, in units of normalised pixels: below is noise


def patch_covariance(images: Iterable[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Images (3, H, W) -> (27, 27), the second moments of all their 3x3 patches, channel by channel.

    Raises ValueError for no image.
    """
    total, count = np.zeros((3 * PATCH**2,) * 2), 0
    for image in images:
        windows = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH), axis=(1, 2))
        patches = windows.transpose(1, 2, 0, 3, 4).reshape(-1, len(total)).astype(np.float64)
        total, count = total + patches.T @ patches, count + len(patches)
    if not count:
        raise ValueError("no image to learn the whitening from")
    return total / count


def whitening_kernels(covariance: NDArray[np.float64], width: int) -> NDArray[np.float32]:
    """-> (width or fewer, 3, 3, 3): the strongest components, then their negatives; at most twice 27, an even number.

    `covariance` is that of `patch_covariance`.
    """
    variances, components = np.linalg.eigh(covariance)  # rising, in columns
    scaled = (components / np.sqrt(np.maximum(variances, 0) + LEAST_VARIANCE)).T[::-1]
    kernels: NDArray[Any] = scaled[: width // 2].reshape(-1, 3, PATCH, PATCH)
    return np.concatenate([kernels, -kernels]).astype(np.float32)
