"""The fused convolution equals the sum of the branches; in float64, with random batch-norm statistics."""

import numpy as np
import pytest

from weights.fuse import BatchNorm, fold_batch_norm, fuse_block, fuse_weights, identity_kernel, widen_to_3x3
from weights.variants import Variant


def convolve(x, kernel, stride, groups):
    """(N, C_in, H, W) * (C_out, C_in / groups, k, k), zero padding k // 2: written from the definition."""
    pad = kernel.shape[2] // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    split = zip(np.split(windows, groups, axis=1), np.split(kernel, groups, axis=0), strict=True)
    return np.concatenate([np.einsum("nchwij,ocij->nohw", part, weights) for part, weights in split], axis=1)


def normalise(x, bn):
    gamma, beta, mean, variance = (v[:, None, None] for v in (bn.gamma, bn.beta, bn.mean, bn.variance))
    return gamma * (x - mean) / np.sqrt(variance + bn.eps) + beta


def random_batch_norm(rng, channels, eps):
    return BatchNorm(
        gamma=rng.normal(1, 0.5, channels),
        beta=rng.normal(0, 1, channels),
        mean=rng.normal(0, 2, channels),
        variance=rng.uniform(1e-3, 4, channels),
        eps=eps,
    )


EVERY_GROUPS = pytest.mark.parametrize("groups", [1, 2, 4])
EVERY_SHAPE = pytest.mark.parametrize(
    ("stride", "widen"), [(1, 1), (1, 2), (2, 1), (2, 2)], ids=["keep", "widen", "halve", "both"]
)


@EVERY_GROUPS
@EVERY_SHAPE
def test_the_fused_convolution_equals_the_sum_of_the_branches(groups, stride, widen):
    rng = np.random.default_rng(groups * 10 + stride)
    channels_in, channels_out = 8, 8 * widen
    kernel_3x3 = rng.normal(size=(channels_out, channels_in // groups, 3, 3))
    kernel_1x1 = rng.normal(size=(channels_out, channels_in // groups, 1, 1))
    bn_3x3, bn_1x1 = random_batch_norm(rng, channels_out, 1e-5), random_batch_norm(rng, channels_out, 1e-3)
    bn_identity = random_batch_norm(rng, channels_in, 1e-2) if (stride, widen) == (1, 1) else None
    x = rng.normal(size=(2, channels_in, 9, 7))

    expected = normalise(convolve(x, kernel_3x3, stride, groups), bn_3x3)
    expected += normalise(convolve(x, kernel_1x1, stride, groups), bn_1x1)
    if bn_identity:
        expected += normalise(x, bn_identity)
    identity = [(identity_kernel(channels_in, groups, np.float64), bn_identity)] if bn_identity else []
    kernel, bias = fuse_block([(kernel_3x3, bn_3x3), (kernel_1x1, bn_1x1), *identity])

    np.testing.assert_allclose(convolve(x, kernel, stride, groups) + bias[:, None, None], expected, atol=1e-10, rtol=0)


@EVERY_GROUPS
@EVERY_SHAPE
def test_a_batch_norm_after_the_sum_is_fused_too(groups, stride, widen):
    rng = np.random.default_rng(groups * 10 + stride)
    channels_in, channels_out = 8, 8 * widen
    kernel_3x3 = rng.normal(size=(channels_out, channels_in // groups, 3, 3))
    kernel_1x1 = rng.normal(size=(channels_out, channels_in // groups, 1, 1))
    bn_3x3, bn_of_sum = random_batch_norm(rng, channels_out, 1e-5), random_batch_norm(rng, channels_out, 1e-3)
    x = rng.normal(size=(2, channels_in, 9, 7))

    added = normalise(convolve(x, kernel_3x3, stride, groups), bn_3x3) + convolve(x, kernel_1x1, stride, groups)
    identity = []
    if (stride, widen) == (1, 1):
        added += x
        identity = [(identity_kernel(channels_in, groups, np.float64), None)]
    kernel, bias = fuse_block([(kernel_3x3, bn_3x3), (kernel_1x1, None), *identity], bn_of_sum)

    found = convolve(x, kernel, stride, groups) + bias[:, None, None]
    np.testing.assert_allclose(found, normalise(added, bn_of_sum), atol=1e-10, rtol=0)


def test_each_branch_uses_its_own_eps():
    ones, zeros = np.ones(1), np.zeros(1)
    kernel, _ = fold_batch_norm(np.ones((1, 1, 3, 3)), zeros, BatchNorm(ones, zeros, zeros, zeros, eps=0.25))
    assert kernel[0, 0, 0, 0] == pytest.approx(2.0)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_identity_kernel_changes_nothing(groups):
    x = np.random.default_rng(0).normal(size=(1, 8, 4, 4))
    np.testing.assert_array_equal(convolve(x, identity_kernel(8, groups, np.float64), 1, groups), x)


def test_a_widened_kernel_is_the_same_convolution():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, 4, 6, 6)), rng.normal(size=(3, 4, 1, 1))
    np.testing.assert_allclose(convolve(x, widen_to_3x3(kernel), 2, 1), convolve(x, kernel, 2, 1), atol=1e-12)


def train_form(variant, rng):
    """name -> random array of every weight of the variant's train form, names as in training.network.repvgg."""

    def bn(name, channels):
        norm = random_batch_norm(rng, channels, 0)
        arrays = {"gamma": norm.gamma, "beta": norm.beta, "moving_mean": norm.mean, "moving_variance": norm.variance}
        return {f"{name}.{part}": array for part, array in arrays.items()}

    weights = {"classifier.bias": rng.normal(size=3), "stages.0.0.squeeze_excite.down.bias": rng.normal(size=2)}
    for block in variant.blocks():
        shape, qa = (block.out_channels, block.in_channels // block.groups), variant.block == "qarepvgg"
        weights[f"{block.name}.branch_3x3.conv.weight"] = rng.normal(size=(*shape, 3, 3))
        weights[f"{block.name}.branch_1x1.{'' if qa else 'conv.'}weight"] = rng.normal(size=(*shape, 1, 1))
        norms = ["branch_3x3.bn", "bn"] if qa else ["branch_3x3.bn", "branch_1x1.bn"]
        norms += ["branch_identity"] if block.keeps_shape and not qa else []
        for norm in norms:
            weights |= bn(f"{block.name}.{norm}", block.out_channels)
    return weights


def block_output(x, block, weights, qa):
    """The output of the block before its ReLU, computed branch by branch."""

    def normalised(y, name):
        parts = (weights[f"{block.name}.{name}.{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance"))
        return normalise(y, BatchNorm(*parts, eps=1e-5))

    def small(kernel):
        return convolve(x, weights[f"{block.name}.{kernel}"], block.stride, block.groups)

    y = normalised(small("branch_3x3.conv.weight"), "branch_3x3.bn")
    if qa:
        return normalised(y + small("branch_1x1.weight") + (x if block.keeps_shape else 0), "bn")
    y = y + normalised(small("branch_1x1.conv.weight"), "branch_1x1.bn")
    return y + normalised(x, "branch_identity") if block.keeps_shape else y


@EVERY_GROUPS
@pytest.mark.parametrize("form", ["repvgg", "qarepvgg"])
def test_every_block_of_a_network_is_fused_by_its_names(form, groups):
    """Blocks that keep their shape, widen, or halve and widen; one that keeps its shape starts a stage."""
    rng = np.random.default_rng(groups)
    variant = Variant((4, 8, 8, 16, 16), (1, 2, 3, 1, 2), groups, strides=(2, 1, 1, 2, 1), block=form)
    weights = train_form(variant, rng)
    fused = fuse_weights(weights, variant, 1e-5)
    blocks = list(variant.blocks())
    assert {(block.stride, block.in_channels == block.out_channels) for block in blocks} == {
        (1, True), (1, False), (2, False)
    }  # fmt: skip
    convolutions = {f"{block.name}.conv.{part}" for block in blocks for part in ("weight", "bias")}
    assert set(fused) == convolutions | {"classifier.bias", "stages.0.0.squeeze_excite.down.bias"}
    for block in blocks:
        x = rng.normal(size=(1, block.in_channels, 6, 5))
        kernel, bias = fused[f"{block.name}.conv.weight"], fused[f"{block.name}.conv.bias"]
        found = convolve(x, kernel, block.stride, block.groups) + bias[:, None, None]
        np.testing.assert_allclose(found, block_output(x, block, weights, form == "qarepvgg"), atol=1e-10, rtol=0)
