"""Train form and deploy form give the same logits in MindSpore, in float32."""

from dataclasses import replace

import numpy as np
import pytest

from weights.variants import VARIANTS, Variant

pytestmark = pytest.mark.usefixtures("cpu")


def with_random_statistics(network, seed):
    """Fresh batch norms are nearly the identity and would hide errors."""
    import mindspore as ms

    rng = np.random.default_rng(seed)
    ranges = {"gamma": (0.5, 1.5), "beta": (-0.5, 0.5), "moving_mean": (-0.5, 0.5), "moving_variance": (0.5, 2.0)}
    for name, parameter in network.parameters_and_names():
        if (kind := name.rsplit(".", 1)[-1]) in ranges:
            parameter.set_data(ms.Tensor(rng.uniform(*ranges[kind], parameter.shape).astype(np.float32)))
    return network.set_train(False)


def variants():
    small = {
        "g2": Variant((8, 16, 16, 32, 32), (1, 2, 3, 2, 1), groups=2),
        "g4": Variant((8, 16, 16, 32, 32), (1, 2, 3, 2, 1), groups=4),
        "se": Variant((16, 32, 32, 32, 64), (1, 2, 2, 2, 1), squeeze_excite=True),
    }
    qa = {f"qa {kind}": replace(variant, block="qarepvgg") for kind, variant in small.items()}
    return small | qa | {"tiny": VARIANTS["RepVGG-Tiny"], "a0": VARIANTS["RepVGG-A0"], "qa a0": VARIANTS["QARepVGG-A0"]}


@pytest.mark.parametrize("kind", ["tiny", "a0", "g2", "g4", "se", "qa a0", "qa g2", "qa g4", "qa se"])
def test_the_deploy_form_gives_the_logits_of_the_train_form(kind):
    from training.network import repvgg
    from weights import fuse

    variant = variants()[kind]
    assert_deployed(repvgg.RepVGG(variant, 7), variant, lambda weights, eps: fuse.fuse_weights(weights, variant, eps))


@pytest.mark.parametrize("kind", ["tiny", "g2", "se", "qa g4"])
def test_the_deploy_form_gives_the_logits_of_kernels_with_batch_norms(kind):
    from training.network import repvgg
    from weights import fuse

    variant = variants()[kind]
    assert_deployed(repvgg.RepVGG(variant, 7, normed=True), variant, fuse.fold_norms)


def assert_deployed(trained, variant, fuse):
    import mindspore as ms

    from training.network import repvgg
    from training.run.checkpoints.checkpoint import restore

    trained = with_random_statistics(trained, seed=3)
    weights = {name: parameter.asnumpy() for name, parameter in repvgg.weights(trained).items()}
    deploy_form = repvgg.RepVGG(variant, 7, deploy=True).set_train(False)
    restore(repvgg.weights(deploy_form), fuse(weights, repvgg.BATCH_NORM_EPS), source="test")

    images = ms.Tensor(np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32))
    expected, found = trained(images).asnumpy(), deploy_form(images).asnumpy()
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(expected).max() > 1e-3, "logits of zero would prove nothing"
    np.testing.assert_allclose(found, expected, atol=1e-4 * scale, rtol=0)


def test_the_deploy_form_has_no_branches_left():
    from training.network import repvgg

    names = repvgg.weights(repvgg.build("RepVGG-Tiny", 10, deploy=True))
    assert {name.split(".")[-2] for name in names} == {"conv", "classifier"}


def test_the_deploy_form_of_qarepvgg_is_that_of_repvgg():
    from training.network import repvgg

    shapes = [
        {name: parameter.shape for name, parameter in repvgg.weights(repvgg.build(arch, 10, deploy=True)).items()}
        for arch in ("RepVGG-A0", "QARepVGG-A0")
    ]
    assert shapes[0] == shapes[1]


def test_the_train_form_of_qarepvgg_has_the_published_size_of_b0():
    from training.network import repvgg

    count = sum(parameter.size for parameter in repvgg.build("QARepVGG-B0", 1000).trainable_params())
    assert count == 15_808_616  # n_parameters in the authors' log, github.com/cxxgtxy/QARepVGG: B0_log.txt


def test_the_train_form_has_the_published_size_of_a0():
    from training.network import repvgg

    count = sum(parameter.size for parameter in repvgg.build("RepVGG-A0", 1000).trainable_params())
    assert round(count / 1e6, 2) == 9.11  # million, RepVGG paper, table 6 (three branches)


@pytest.mark.parametrize(("arch", "batch_norms"), [("RepVGG-Tiny", 1), ("QARepVGG-Tiny", 2)])
def test_a_stem_with_given_kernels_fuses_to_these_kernels(arch, batch_norms):
    from training.network import repvgg
    from weights import fuse

    network = repvgg.build(arch, 10)
    kernels = np.random.default_rng(2).normal(size=(20, 3, 3, 3)).astype(np.float32)
    repvgg.set_stem_kernels(network, kernels)
    weights = {name: parameter.asnumpy() for name, parameter in repvgg.weights(network).items()}
    fused = fuse.fuse_weights(weights, VARIANTS[arch], repvgg.BATCH_NORM_EPS)["stages.0.0.conv.weight"]
    np.testing.assert_allclose(fused[:20], kernels / np.sqrt(1 + repvgg.BATCH_NORM_EPS) ** batch_norms, rtol=1e-6)
    assert fused[20:].any(axis=(1, 2, 3)).all(), "the other channels keep their random kernels"
