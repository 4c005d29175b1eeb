"""Re-parameterisation: the three branches of a RepVGG or QARepVGG block become one 3x3 convolution. numpy only.

In inference a batch norm is a scale and a shift, a 1x1 kernel is a 3x3 kernel with zeros around its centre, the
identity is a 1x1 kernel with ones on the diagonal, and convolution is linear in its kernel. So the branches add up to
one kernel and one bias (Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, section 3.3). A batch
norm after the sum (QARepVGG) scales and shifts that convolution once more. Kernels have the shape
(C_out, C_in / groups, height, width), and everything is computed in the dtype of the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weights.variants import Block, Variant

Array = NDArray[Any]


@dataclass(frozen=True)
class BatchNorm:
    """Inference form of a batch norm: `gamma * (x - mean) / sqrt(variance + eps) + beta`, each (C,)."""

    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    eps: float


Branch = tuple[Array, BatchNorm | None]  # a 3x3 or 1x1 kernel, and the batch norm after it


def fold_batch_norm(kernel: Array, bias: Array, bn: BatchNorm | None) -> tuple[Array, Array]:
    """A convolution and the batch norm after it, if any -> kernel and bias (C_out,) of an equal convolution."""
    if bn is None:
        return kernel, bias
    scale = bn.gamma / np.sqrt(bn.variance + bn.eps)
    return kernel * scale[:, None, None, None], bn.beta + (bias - bn.mean) * scale


def widen_to_3x3(kernel: Array) -> Array:
    """(C_out, C_in / groups, 1, 1) or (..., 3, 3) -> the same convolution as (C_out, C_in / groups, 3, 3)."""
    margin = (3 - kernel.shape[2]) // 2
    return np.pad(kernel, ((0, 0), (0, 0), (margin, margin), (margin, margin)))


def identity_kernel(channels: int, groups: int, dtype: Any) -> Array:
    """The 1x1 convolution that returns its input: within its group, output channel i reads input channel i."""
    per_group = channels // groups
    kernel = np.zeros((channels, per_group, 1, 1), dtype)
    kernel[np.arange(channels), np.arange(channels) % per_group] = 1
    return kernel


def fuse_block(branches: Sequence[Branch], bn_of_sum: BatchNorm | None = None) -> tuple[Array, Array]:
    """The branches of a block -> kernel (C_out, C_in / groups, 3, 3) and bias (C_out,) of one convolution.

    `bn_of_sum` is the batch norm after the sum of the branches (QARepVGG).
    """
    folded = [fold_batch_norm(widen_to_3x3(kernel), np.zeros(len(kernel)), bn) for kernel, bn in branches]
    kernel, bias = (np.sum(parts, axis=0) for parts in zip(*folded, strict=True))
    return fold_batch_norm(kernel, bias, bn_of_sum)


def fuse_weights(weights: Mapping[str, Array], variant: Variant, eps: float) -> dict[str, Array]:
    """Weights of the variant's train form (names as in training.network.repvgg) -> weights of its deploy form.

    Sums are in float64, and each weight keeps its dtype. Weights that are not part of a branch (classifier,
    squeeze-and-excitation) are returned unchanged.
    """
    fused: dict[str, Array] = {}
    for block in variant.blocks():
        kernel, bias = fuse_block(*_branches(weights, block, variant, eps))
        dtype = weights[f"{block.name}.{_KERNEL_3X3}"].dtype
        fused |= {f"{block.name}.conv.weight": kernel.astype(dtype), f"{block.name}.conv.bias": bias.astype(dtype)}
    return fused | {name: array for name, array in weights.items() if ".branch_" not in name and ".bn." not in name}


def fold_norms(weights: Mapping[str, Array], eps: float) -> dict[str, Array]:
    """One convolution and one batch norm a block -> the deploy form; weights of other forms stay as they are."""
    folded = dict(weights)
    for name in [name for name in weights if name.endswith(".bn.gamma") and _is_normed(name, weights)]:
        block = name.removesuffix(".bn.gamma")
        kernel, norm = weights[f"{block}.conv.weight"], _batch_norm(weights, f"{block}.bn", eps)
        found = fold_batch_norm(kernel.astype(np.float64), np.zeros(len(kernel)), norm)
        for part in _NORM:
            del folded[f"{block}.bn.{part}"]
        folded |= {
            f"{block}.conv.{part}": one.astype(kernel.dtype)
            for part, one in zip(("weight", "bias"), found, strict=True)
        }
    return folded


def _is_normed(gamma: str, weights: Mapping[str, Array]) -> bool:
    return ".branch_" not in gamma and gamma.replace(".bn.gamma", ".conv.weight") in weights


def _batch_norm(weights: Mapping[str, Array], name: str, eps: float) -> BatchNorm:
    """In float64."""
    gamma, beta, mean, variance = (weights[f"{name}.{part}"].astype(np.float64) for part in _NORM)
    return BatchNorm(gamma, beta, mean, variance, eps)


_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_KERNEL_3X3 = "branch_3x3.conv.weight"


def _branches(
    weights: Mapping[str, Array], block: Block, variant: Variant, eps: float
) -> tuple[list[Branch], BatchNorm | None]:
    """The branches of a block in the train form, and the batch norm after their sum; float64."""

    def array(name: str) -> Array:
        return weights[f"{block.name}.{name}"].astype(np.float64)

    def bn(name: str) -> BatchNorm:
        return _batch_norm(weights, f"{block.name}.{name}", eps)

    qa = variant.block == "qarepvgg"
    small = (array("branch_1x1.weight"), None) if qa else (array("branch_1x1.conv.weight"), bn("branch_1x1.bn"))
    branches: list[Branch] = [(array(_KERNEL_3X3), bn("branch_3x3.bn")), small]
    if block.keeps_shape:
        identity = identity_kernel(block.out_channels, block.groups, np.float64)
        branches.append((identity, None if qa else bn("branch_identity")))
    return branches, bn("bn") if qa else None
