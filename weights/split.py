"""The reverse of fusing: the one convolution of a deployed block becomes branches that can be trained further.

1. the branches add up to the same convolution, whatever the variant, its groups and its form;
2. statistics of batch norms are replaced without changing what the network computes in inference.

Any split is correct; this one resembles the result of training from scratch, so that a recipe's learning rates keep
their meaning. In trained networks, the identity branch carries the diagonal of the kernel's centre; the 1x1 branch
carries most of the rest of the centre; and in the 3x3 branch the centre is no larger than the eight taps around it. No
branch works against another, because the noise of the batch statistics would grow with the parts that cancel out. The
kernels before a batch norm get channels of length one, about that of freshly initialised ones and of those that Muon
keeps: their length changes only how far a step of the optimizer turns them, and in a fused kernel it is arbitrary.
numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weights.fuse import identity_kernel
from weights.variants import Block, Variant

Array = NDArray[Any]
Moments = Mapping[str, tuple[Array, Array]]  # name of a batch norm -> mean and variance (C,) of its input

# The largest share of the centre's off-diagonal part in the 3x3 branch: in trained networks it is a fifth to a quarter.
MOST_IN_3X3 = 0.5


def split_weights(weights: Mapping[str, Array], variant: Variant, eps: float) -> dict[str, Array]:
    """Weights of the deploy form -> float32 weights of the train form, with batch norms that expect mean 0 and
    variance 1: `restate` gives them the statistics of images."""
    split: dict[str, Array] = {}
    for block in variant.blocks():
        kernel, bias = (weights[f"{block.name}.conv.{part}"].astype(np.float64) for part in ("weight", "bias"))
        parts = (_qarepvgg if variant.block == "qarepvgg" else _repvgg)(kernel, bias, block, eps)
        split |= {f"{block.name}.{name}": array.astype(np.float32) for name, array in parts.items()}
    return split | {name: array for name, array in weights.items() if ".conv." not in name}


def normed_weights(weights: Mapping[str, Array], variant: Variant, eps: float) -> dict[str, Array]:
    """Weights of the deploy form -> float32 weights with a batch norm after each kernel instead of its bias; the norms
    expect mean 0 and variance 1, as in `split_weights`."""
    normed: dict[str, Array] = {}
    for block in variant.blocks():
        kernel, bias = (weights[f"{block.name}.conv.{part}"].astype(np.float64) for part in ("weight", "bias"))
        unit, length = _unit_channels(kernel)
        parts = {"conv.weight": unit} | _batch_norm("bn", length, bias, eps)
        normed |= {f"{block.name}.{name}": array.astype(np.float32) for name, array in parts.items()}
    return normed | {name: array for name, array in weights.items() if ".conv." not in name}


def _repvgg(kernel: Array, bias: Array, block: Block, eps: float) -> dict[str, Array]:
    large, small, diagonal = _shares(kernel, block)
    parts: dict[str, Array] = {}
    for name, share in (("branch_3x3", large), ("branch_1x1", small)):
        parts[f"{name}.conv.weight"], length = _unit_channels(share)
        parts |= _batch_norm(f"{name}.bn", length, np.zeros_like(bias), eps)
    parts["branch_3x3.bn.beta"] = bias
    if block.keeps_shape:
        parts |= _batch_norm("branch_identity", diagonal, np.zeros_like(bias), eps)
    return parts


def _qarepvgg(kernel: Array, bias: Array, block: Block, eps: float) -> dict[str, Array]:
    """The batch norm of the sum scales all three branches, the identity among them: its scale is the diagonal, except
    where that is too small to divide by, and the 1x1 branch takes the difference."""
    large, small, diagonal = _shares(kernel, block)
    if block.keeps_shape:
        usual = np.median(np.abs(diagonal)) or 1.0
        scale = np.maximum(diagonal, usual / 2)
        small = small + _on_diagonal(diagonal - scale, block)
    else:
        scale = np.full(len(kernel), np.sqrt((small**2).sum((1, 2, 3)).mean()) or 1.0)
    large, length = _unit_channels(large / scale[:, None, None, None])
    return {
        "branch_3x3.conv.weight": large,
        **_batch_norm("branch_3x3.bn", length, np.zeros_like(bias), eps),
        "branch_1x1.weight": small / scale[:, None, None, None],
        **_batch_norm("bn", scale, bias, eps),
    }


def _shares(kernel: Array, block: Block) -> tuple[Array, Array, Array]:
    """-> what the 3x3 (C_out, C_in / groups, 3, 3), the 1x1 (C_out, C_in / groups, 1, 1) and the identity branch (C,)
    add to the block's kernel; the last is all zeros where there is no such branch."""
    centre = kernel[:, :, 1:2, 1:2]
    diagonal = np.zeros(len(kernel))
    if block.keeps_shape:
        diagonal = (centre * _on_diagonal(np.ones(len(kernel)), block)).sum((1, 2, 3))
        centre = centre - _on_diagonal(diagonal, block)
    around = kernel.copy()
    around[:, :, 1, 1] = 0
    tap, middle = (np.sqrt((part**2).sum((1, 2, 3), keepdims=True)) for part in (around / np.sqrt(8), centre))
    share = np.minimum(MOST_IN_3X3, tap / np.where(middle > 0, middle, 1))
    around[:, :, 1:2, 1:2] = share * centre
    return around, (1 - share) * centre, diagonal


def _on_diagonal(values: Array, block: Block) -> Array:
    """(C,) -> the 1x1 kernel that multiplies each channel by its value."""
    return values[:, None, None, None] * identity_kernel(len(values), block.groups, values.dtype)


def _unit_channels(kernel: Array) -> tuple[Array, Array]:
    """-> the kernel with output channels of length one, and their lengths (C_out,). A channel of zeros becomes a random
    one of length 0, which the batch norm after it can bring to life; zeros would get no gradient."""
    length = np.sqrt((kernel**2).sum((1, 2, 3)))
    fresh = np.random.default_rng(0).normal(size=kernel.shape)
    unit = np.where((length > 0)[:, None, None, None], kernel, fresh)
    return unit / np.sqrt((unit**2).sum((1, 2, 3), keepdims=True)), length


def _batch_norm(name: str, scale: Array, shift: Array, eps: float) -> dict[str, Array]:
    """One that computes `scale * x + shift`."""
    zeros, ones = np.zeros_like(scale), np.ones_like(scale)
    statistics = {f"{name}.moving_mean": zeros, f"{name}.moving_variance": ones - eps}
    return {f"{name}.gamma": scale, f"{name}.beta": shift, **statistics}


def restate(weights: Mapping[str, Array], moments: Moments, eps: float) -> dict[str, Array]:
    """Weights of a train form whose batch norms have these moments as their statistics, and scales and shifts with
    which they compute the same as before in inference."""
    changed = dict(weights)
    for name, (mean, variance) in moments.items():
        old = {part: weights[f"{name}.{part}"].astype(np.float64) for part in ("gamma", "beta", *STATISTICS)}
        scale = old["gamma"] / np.sqrt(old["moving_variance"] + eps)
        new = {"moving_mean": mean, "moving_variance": variance, "gamma": scale * np.sqrt(variance + eps)}
        new["beta"] = old["beta"] + scale * (mean - old["moving_mean"])
        changed |= {f"{name}.{part}": np.asarray(array, np.float32) for part, array in new.items()}
    return changed


STATISTICS = ("moving_mean", "moving_variance")
