"""Explains an answer from the network's last step: the mean of the last feature map, and one matrix.

1. each cell's contribution to a logit is exact: `logit = sum(grid) + bias`;
2. the matrix is that of the artifact that answered, dequantised if it is int8;
3. an artifact whose features and matrix do not give its logits is never explained.

Zhou et al. 2016, "Learning Deep Features for Discriminative Localization".
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleError
from models.manifest import Artifact
from models.preprocess import Box
from models.store import Bundle

# The error of float32 sums of a thousand terms, at logits around 10.
TOLERANCE = 1e-4
ROUNDING = 1e-6  # of the largest logit, if that is more


class Cam(NamedTuple):
    """`grid` float64 (h, w), rows from the top: the contribution of each cell to the `logit`; with `bias` they add up
    to it. `box`: the part of the photo that the grid covers."""

    grid: NDArray[np.float64]
    bias: float
    logit: float
    box: Box


@dataclass(frozen=True)
class Head:
    """The network's last step: logits = `weight` @ mean of the feature map over its cells + `bias`; float32 (K, C) and
    (K,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def size(self) -> int:
        """How many parameters it has."""
        return self.weight.size + self.bias.size

    def __call__(self, means: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, C) means -> (N, K) logits, summed in double precision."""
        return self._product(means).astype(np.float32)

    def _product(self, means: NDArray[Any]) -> NDArray[np.float64]:
        logits: NDArray[np.float64] = means.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias
        return logits

    def encode(self) -> bytes:
        """The .npz file of a bundle."""
        content = io.BytesIO()
        np.savez(content, weight=self.weight, bias=self.bias)
        return content.getvalue()

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(..., C, h, w) feature maps -> (..., K)."""
        return self._product(features.mean(axis=(-2, -1), dtype=np.float64))

    def delta(self, features: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
        """The largest difference between the logits (N, K) and those of the feature maps (N, C, h, w); infinite if they
        do not belong together."""
        if features.ndim != 4 or features.shape[1] != self.weight.shape[1] or not np.isfinite(features).all():
            return np.inf
        return float(np.max(np.abs(self.logits(features) - logits)))

    def explain(self, features: NDArray[np.float32], logits: NDArray[np.float32], class_id: int, box: Box) -> Cam:
        """One image's feature map (C, h, w) and logits (K,) -> the contributions to the logit of a class.

        `bias` is the rest: the class's bias and, in a precision below fp32, the rounding error of the last step.
        """
        weight = self.weight[class_id].astype(np.float64) / features[0].size
        grid: NDArray[np.float64] = np.tensordot(weight, features, axes=1)
        logit = float(logits[class_id])
        return Cam(grid, logit - float(grid.sum()), logit, box)


def tolerance(logits: NDArray[np.float32]) -> float:
    """How far float32 logits may differ from those of their feature maps."""
    return max(TOLERANCE, ROUNDING * float(np.abs(logits).max()))


def pooled(features: NDArray[np.float32], *, normalize: bool) -> NDArray[np.float32]:
    """One image's feature map (C, h, w) -> its mean over the cells, float32 (C,); of length 1 if `normalize` is set."""
    means = features.mean(axis=(1, 2), dtype=np.float64)
    if normalize:
        means /= max(float(np.linalg.norm(means)), np.finfo(np.float64).tiny)
    return np.asarray(means, np.float32)


def read_head(bundle: Bundle, artifact: Artifact) -> Head | None:
    """None for an artifact without features. Raises BundleError for a file that does not fit the network."""
    if artifact.features is None:
        return None
    path, classes = bundle.folder / artifact.features.head, bundle.manifest.network.num_classes
    try:
        with np.load(path, allow_pickle=False) as arrays:
            head = Head(arrays["weight"], arrays["bias"])
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise BundleError(f"{path} is not an .npz file of `weight` and `bias`: {error}") from error
    found: list[Any] = [head.weight.dtype, head.weight.ndim, head.weight.shape[:1], head.bias.dtype, head.bias.shape]
    if found != [np.float32, 2, (classes,), np.float32, (classes,)]:
        raise BundleError(
            f"{path} must hold float32 `weight` ({classes}, C) and `bias` ({classes},), not {head.weight.dtype} "
            f"{head.weight.shape} and {head.bias.dtype} {head.bias.shape}"
        )
    confidence = bundle.manifest.confidence
    if confidence and confidence.embedding_weights and len(confidence.embedding_weights) != head.weight.shape[1]:
        raise BundleError(
            f"{bundle.folder}: {len(confidence.embedding_weights)} confidence.embedding_weights for "
            f"{head.weight.shape[1]} features; fit the confidence again"
        )
    return head
