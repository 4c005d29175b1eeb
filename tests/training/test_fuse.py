"""The fused convolution is the sum of the branches; maths in float64, random batch-norm statistics."""

import numpy as np
import pytest

from training.fuse import BatchNorm, fold_batch_norm, fuse_block, identity_kernel, widen_to_3x3


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


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("stride", "widen"), [(1, 1), (1, 2), (2, 1), (2, 2)], ids=["keep", "widen", "halve", "both"])
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
    kernel, bias = fuse_block(kernel_3x3, bn_3x3, kernel_1x1, bn_1x1, bn_identity)

    np.testing.assert_allclose(convolve(x, kernel, stride, groups) + bias[:, None, None], expected, atol=1e-10, rtol=0)


def test_each_branch_uses_its_own_eps():
    ones, zeros = np.ones(1), np.zeros(1)
    kernel, _ = fold_batch_norm(np.ones((1, 1, 3, 3)), BatchNorm(ones, zeros, zeros, zeros, eps=0.25))
    assert kernel[0, 0, 0, 0] == pytest.approx(2.0)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_identity_kernel_changes_nothing(groups):
    x = np.random.default_rng(0).normal(size=(1, 8, 4, 4))
    np.testing.assert_array_equal(convolve(x, identity_kernel(8, groups, np.float64), 1, groups), x)


def test_a_widened_kernel_is_the_same_convolution():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, 4, 6, 6)), rng.normal(size=(3, 4, 1, 1))
    np.testing.assert_allclose(convolve(x, widen_to_3x3(kernel), 2, 1), convolve(x, kernel, 2, 1), atol=1e-12)
