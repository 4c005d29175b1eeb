"""What a split network computes is what the fused one does; the reference is weights.forward, branch by branch."""

import numpy as np
import pytest

from tests.training.published_weights import narrow
from weights.forward import logits
from weights.fuse import fold_norms, fuse_weights
from weights.layout import BATCH_NORM_EPS, mismatches, shapes
from weights.split import normed_weights, restate, split_weights
from weights.variants import VARIANTS, Variant

CLASSES = 7
EVERY_KIND = pytest.mark.parametrize(
    "arch", ["RepVGG-A0", "RepVGG-B1g2", "RepVGG-B1g4", "RepVGG-D2se", "QARepVGG-A0", "QARepVGG-B1g4", "RepVGG-Small"]
)


def deployed(variant: Variant, seed: int = 0) -> dict:
    """Random fused weights whose activations neither vanish nor explode, some channels dead as after training."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes(variant, CLASSES, deploy=True).items():
        fan_in = np.prod(shape[1:]) or 1
        array = rng.normal(0, np.sqrt(2 / fan_in) if len(shape) > 1 else 0.1, shape)
        if name.endswith(".conv.weight"):
            array[0] = 0
        weights[name] = array.astype(np.float32)
    return weights


def images(count: int = 2, size: int = 32):
    return np.random.default_rng(5).normal(size=(count, 3, size, size)).astype(np.float32)


def off_by(expected, found):
    return np.abs(found - expected).max() / expected.std()


@EVERY_KIND
def test_the_branches_add_up_to_the_same_convolution(arch):
    variant = narrow(VARIANTS[arch])
    fused = deployed(variant)
    split = split_weights(fused, variant, BATCH_NORM_EPS)
    assert mismatches(split, variant, CLASSES) == []
    assert off_by(logits(fused, variant, images()), logits(split, variant, images())) < 1e-5
    for name, array in fuse_weights(split, variant, BATCH_NORM_EPS).items():
        np.testing.assert_allclose(array, fused[name], atol=1e-6, rtol=0, err_msg=name)


@EVERY_KIND
def test_new_statistics_change_nothing_in_inference(arch):
    variant, rng = narrow(VARIANTS[arch]), np.random.default_rng(1)
    split = split_weights(deployed(variant), variant, BATCH_NORM_EPS)
    norms = [name.removesuffix(".gamma") for name in split if name.endswith(".gamma")]
    moments = {
        n: (rng.normal(0, 2, len(split[f"{n}.gamma"])), rng.uniform(0.1, 9, len(split[f"{n}.gamma"]))) for n in norms
    }
    restated = restate(split, moments, BATCH_NORM_EPS)
    assert all(np.allclose(restated[f"{name}.moving_mean"], moments[name][0]) for name in norms)
    assert off_by(logits(split, variant, images()), logits(restated, variant, images())) < 1e-5


@EVERY_KIND
def test_kernels_with_batch_norms_fold_back_to_themselves_whatever_the_statistics(arch):
    variant, rng = narrow(VARIANTS[arch]), np.random.default_rng(2)
    fused = deployed(variant)
    normed = normed_weights(fused, variant, BATCH_NORM_EPS)
    kernels = [array for name, array in normed.items() if name.endswith(".conv.weight")]
    assert all(np.allclose((kernel**2).sum((1, 2, 3)), 1) for kernel in kernels), "dead channels, too, can learn"
    assert not any(name.endswith(".conv.bias") for name in normed)
    norms = {name.removesuffix(".gamma"): len(array) for name, array in normed.items() if name.endswith(".gamma")}
    moments = {name: (rng.normal(0, 2, width), rng.uniform(0.1, 9, width)) for name, width in norms.items()}
    folded = fold_norms(restate(normed, moments, BATCH_NORM_EPS), BATCH_NORM_EPS)
    assert folded.keys() == fused.keys()
    for name, array in folded.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, fused[name], atol=2e-6, rtol=0, err_msg=name)


@EVERY_KIND
def test_other_forms_have_nothing_to_fold(arch):
    variant = narrow(VARIANTS[arch])
    fused = deployed(variant)
    for weights in (fused, split_weights(fused, variant, BATCH_NORM_EPS)):
        folded = fold_norms(weights, BATCH_NORM_EPS)
        assert folded.keys() == weights.keys()
        assert all(folded[name] is weights[name] for name in weights)


def test_no_branch_works_against_another():
    """The share of each branch in a tap of the kernel has the sign of that tap, and no branch but a dead channel's is
    empty."""
    variant = narrow(VARIANTS["RepVGG-B1g2"])
    fused = deployed(variant)
    split = split_weights(fused, variant, BATCH_NORM_EPS)
    for block in variant.blocks():
        centre = fused[f"{block.name}.conv.weight"][:, :, 1, 1]
        for branch in ("branch_3x3", "branch_1x1"):
            kernel, gamma = split[f"{block.name}.{branch}.conv.weight"], split[f"{block.name}.{branch}.bn.gamma"]
            middle = kernel[:, :, kernel.shape[2] // 2, kernel.shape[2] // 2] * gamma[:, None]
            assert (middle * centre >= 0).all()
            assert (np.abs(middle) <= np.abs(centre) * (1 + 1e-6)).all()
            np.testing.assert_allclose((kernel**2).sum((1, 2, 3)), 1, rtol=1e-5)
            assert gamma[0] == 0
            assert (gamma[1:] > 0).all()
