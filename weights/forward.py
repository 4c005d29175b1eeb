"""Weights of either form -> logits, in numpy: the truth that a converted model is measured against.

The branches of a train form are computed one by one and added up, as the code that trained them does; nothing is fused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weights.layout import BATCH_NORM_EPS, is_train_form
from weights.variants import Block, Variant

Array = NDArray[Any]


def logits(weights: Mapping[str, Array], variant: Variant, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (N, 3, S, S) -> (N, K); one image at a time, since each layer's windows take nine times its memory."""
    return np.concatenate([_logits(weights, variant, image[None]) for image in images])


def _logits(weights: Mapping[str, Array], variant: Variant, x: Array) -> Array:
    train = is_train_form(weights)
    for block in variant.blocks():
        parts = {name.removeprefix(f"{block.name}."): array for name, array in weights.items() if _is_of(name, block)}
        y = _branches(parts, block, variant, x) if train else _convolve(x, parts["conv.weight"], block)
        if not train:
            y += parts["conv.bias"][:, None, None]
        if variant.squeeze_excite:
            y *= _attention(parts, y)
        x = np.maximum(y, 0)
    pooled = x.mean((2, 3))
    return np.asarray(pooled @ weights["classifier.weight"].T + weights["classifier.bias"], np.float32)


def _is_of(name: str, block: Block) -> bool:
    return name.startswith(f"{block.name}.")


def _branches(parts: Mapping[str, Array], block: Block, variant: Variant, x: Array) -> Array:
    y = _normalise(_convolve(x, parts["branch_3x3.conv.weight"], block), parts, "branch_3x3.bn")
    if variant.block == "qarepvgg":
        y = y + _convolve(x, parts["branch_1x1.weight"], block)
        return _normalise(y + x if block.keeps_shape else y, parts, "bn")
    y += _normalise(_convolve(x, parts["branch_1x1.conv.weight"], block), parts, "branch_1x1.bn")
    return y + _normalise(x, parts, "branch_identity") if block.keeps_shape else y


def _normalise(x: Array, parts: Mapping[str, Array], name: str) -> Array:
    gamma, beta, mean, variance = (
        parts[f"{name}.{part}"][:, None, None] for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return np.asarray(gamma * (x - mean) / np.sqrt(variance + np.float32(BATCH_NORM_EPS)) + beta)


def _convolve(x: Array, kernel: Array, block: Block) -> Array:
    """(1, C_in, H, W) with zero padding -> (1, C_out, H', W')."""
    size, stride = kernel.shape[2], block.stride
    pad = size // 2
    x = np.pad(x[0], ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]
    height, width = windows.shape[1:3]
    outputs = []
    for part, weights in zip(np.split(windows, block.groups), np.split(kernel, block.groups), strict=True):
        columns = part.transpose(0, 3, 4, 1, 2).reshape(-1, height * width)
        outputs.append((weights.reshape(len(weights), -1) @ columns).reshape(len(weights), height, width))
    return np.concatenate(outputs)[None]


def _attention(parts: Mapping[str, Array], y: Array) -> Array:
    """(1, C, H, W) -> (1, C, 1, 1) in 0..1."""
    down, up = (parts[f"squeeze_excite.{name}.weight"][:, :, 0, 0] for name in ("down", "up"))
    inner = np.maximum(y.mean((2, 3)) @ down.T + parts["squeeze_excite.down.bias"], 0)
    outer = inner @ up.T + parts["squeeze_excite.up.bias"]
    return np.asarray(1 / (1 + np.exp(-outer)))[:, :, None, None]
