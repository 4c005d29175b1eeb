"""Re-parameterisation: the three branches of a RepVGG block become one 3x3 convolution. numpy only.

In inference a batch norm is a scale and a shift, a 1x1 kernel is a 3x3 kernel that is zero around its centre,
the identity is a 1x1 kernel of ones on the diagonal, and convolution is linear in its kernel: the branches add up
to one kernel and one bias (Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, section 3.3).
Kernels are (C_out, C_in / groups, height, width); all maths is in the dtype of the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class BatchNorm:
    """Inference form of a batch norm: `gamma * (x - mean) / sqrt(variance + eps) + beta`, each (C,)."""

    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    eps: float


def fold_batch_norm(kernel: Array, bn: BatchNorm) -> tuple[Array, Array]:
    """A convolution without bias and the batch norm after it -> kernel and bias (C_out,) of one convolution."""
    scale = bn.gamma / np.sqrt(bn.variance + bn.eps)
    return kernel * scale[:, None, None, None], bn.beta - bn.mean * scale


def widen_to_3x3(kernel: Array) -> Array:
    """(C_out, C_in / groups, 1, 1) -> the same convolution as (C_out, C_in / groups, 3, 3)."""
    return np.pad(kernel, ((0, 0), (0, 0), (1, 1), (1, 1)))


def identity_kernel(channels: int, groups: int, dtype: Any) -> Array:
    """The 1x1 convolution that changes nothing. Within its group, output channel i reads input channel i."""
    per_group = channels // groups
    kernel = np.zeros((channels, per_group, 1, 1), dtype)
    kernel[np.arange(channels), np.arange(channels) % per_group] = 1
    return kernel


def fuse_block(
    kernel_3x3: Array, bn_3x3: BatchNorm, kernel_1x1: Array, bn_1x1: BatchNorm, bn_identity: BatchNorm | None
) -> tuple[Array, Array]:
    """The branches of a block -> (C_out, C_in / groups, 3, 3) kernel and (C_out,) bias of the one convolution.

    The identity branch exists only where the block keeps shape; its groups follow from the kernels.
    """
    kernel, bias = fold_batch_norm(kernel_3x3, bn_3x3)
    folded = [fold_batch_norm(kernel_1x1, bn_1x1)]
    if bn_identity is not None:
        channels, per_group = kernel_3x3.shape[:2]
        groups = channels // per_group  # C_in equals C_out where there is an identity branch
        folded.append(fold_batch_norm(identity_kernel(channels, groups, kernel_3x3.dtype), bn_identity))
    for small_kernel, small_bias in folded:
        kernel, bias = kernel + widen_to_3x3(small_kernel), bias + small_bias
    return kernel, bias


def fuse_weights(weights: Mapping[str, Array], eps: float) -> dict[str, Array]:
    """Weights of the train form (names as in training.repvgg) -> weights of the deploy form.

    Sums in float64 and returns each weight in its own dtype; what belongs to no block (classifier,
    squeeze-and-excitation) passes through unchanged.
    """
    fused: dict[str, Array] = {}
    blocks = [name.removesuffix(_KERNEL_3X3) for name in weights if name.endswith(_KERNEL_3X3)]
    for block in blocks:
        kernel, bias = fuse_block(
            weights[block + _KERNEL_3X3].astype(np.float64),
            _batch_norm(weights, f"{block}branch_3x3.bn.", eps),
            weights[block + _KERNEL_1X1].astype(np.float64),
            _batch_norm(weights, f"{block}branch_1x1.bn.", eps),
            _batch_norm(weights, f"{block}branch_identity.", eps)
            if f"{block}branch_identity.gamma" in weights
            else None,
        )
        dtype = weights[block + _KERNEL_3X3].dtype
        fused |= {f"{block}conv.weight": kernel.astype(dtype), f"{block}conv.bias": bias.astype(dtype)}
    return fused | {name: array for name, array in weights.items() if ".branch_" not in name}


_KERNEL_3X3 = "branch_3x3.conv.weight"
_KERNEL_1X1 = "branch_1x1.conv.weight"


def _batch_norm(weights: Mapping[str, Array], prefix: str, eps: float) -> BatchNorm:
    gamma, beta, mean, variance = (
        weights[prefix + part].astype(np.float64) for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return BatchNorm(gamma, beta, mean, variance, eps)
