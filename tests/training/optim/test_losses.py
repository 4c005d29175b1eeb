import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("cpu")

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(0, 4, (6, 4))
LABELS = np.array([0, 3, 1, 2, 2, 0])


def cross_entropy(logits, targets, smoothing):
    """Written from the definition, float64."""
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    q = (1 - smoothing) * targets + smoothing / logits.shape[1]
    return -(q * log_p).sum(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("kind", ["class ids", "soft targets"])
def test_the_loss_is_the_formula(smoothing, kind):
    import mindspore as ms

    from training.optim.losses import CrossEntropySmooth

    hard = np.eye(4)[LABELS]
    soft = 0.3 * hard + 0.7 * hard[::-1]
    given, targets = (
        (LABELS.astype(np.int32), hard) if kind == "class ids" else (soft.astype(np.float32), soft.astype(np.float32))
    )
    found = CrossEntropySmooth(smoothing)(ms.Tensor(LOGITS.astype(np.float32)), ms.Tensor(given))
    assert float(found.asnumpy()) == pytest.approx(cross_entropy(LOGITS, targets, smoothing), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_several_labels_is_the_formula(smoothing):
    import mindspore as ms

    from training.optim.losses import BinaryCrossEntropy

    targets = RNG.integers(0, 2, LOGITS.shape)
    p, q = 1 / (1 + np.exp(-LOGITS)), (1 - smoothing) * targets + smoothing / 2
    expected = -(q * np.log(p) + (1 - q) * np.log(1 - p)).mean()
    given = ms.Tensor(LOGITS.astype(np.float32)), ms.Tensor(targets.astype(np.float32))
    assert float(BinaryCrossEntropy(smoothing)(*given).asnumpy()) == pytest.approx(expected, rel=1e-5)
    huge = ms.Tensor(np.float32([[1e4, -1e4]])), ms.Tensor(np.float32([[0, 1]]))
    assert np.isfinite(float(BinaryCrossEntropy(smoothing)(*huge).asnumpy()))


def test_a_confident_network_has_a_finite_loss():
    import mindspore as ms

    from training.optim.losses import CrossEntropySmooth

    logits = ms.Tensor(np.array([[1e4, -1e4, 0]], np.float32))
    assert float(CrossEntropySmooth(0.1)(logits, ms.Tensor(np.array([0], np.int32))).asnumpy()) == pytest.approx(1e3)


def test_the_true_class_of_a_soft_target_is_its_most_likely_one():
    import mindspore as ms

    from training.optim.losses import true_classes

    soft = np.array([[0.3, 0.7, 0], [0.9, 0, 0.1]], np.float32)
    assert true_classes(ms.Tensor(soft)).asnumpy().tolist() == [1, 0]
    assert true_classes(ms.Tensor(np.array([2, 1], np.int32))).asnumpy().tolist() == [2, 1]


@pytest.fixture
def network():
    """Four blocks, with groups, an identity branch and random batch-norm statistics."""
    import mindspore as ms

    from training.network import repvgg
    from weights.variants import Variant

    built = repvgg.RepVGG(Variant((4, 8, 8, 8, 8), (1, 1, 1, 1, 1), groups=2, strides=(2, 1, 1, 2, 1)), 3)
    ranges = {"gamma": (0.5, 1.5), "moving_variance": (0.5, 2.0)}
    for name, parameter in built.parameters_and_names():
        if (kind := name.rsplit(".", 1)[-1]) in ranges:
            parameter.set_data(ms.Tensor(RNG.uniform(*ranges[kind], parameter.shape).astype(np.float32)))
    return built


def blocks_of(network):
    """Both kernels and both scales of each block, in float64."""
    from training.network import repvgg

    weights = {name: value.asnumpy().astype(np.float64) for name, value in repvgg.weights(network).items()}
    for name in (name.removesuffix("branch_3x3.conv.weight") for name in weights if "branch_3x3.conv" in name):
        scales = [
            weights[f"{name}{branch}.bn.gamma"] / np.sqrt(weights[f"{name}{branch}.bn.moving_variance"] + 1e-5)
            for branch in ("branch_3x3", "branch_1x1")
        ]
        t3, t1 = (scale[:, None, None] for scale in scales)
        yield name, weights[f"{name}branch_3x3.conv.weight"], weights[f"{name}branch_1x1.conv.weight"], t3, t1


def test_the_custom_l2_is_the_formula(network):
    from training.optim.losses import CustomL2

    expected = 0.0
    for _, k3, k1, t3, t1 in blocks_of(network):
        centre = np.zeros((3, 3), bool)
        centre[1, 1] = True
        expected += (k3[:, :, ~centre] ** 2).sum()
        expected += (
            (k3[:, :, 1, 1, None, None] * t3[..., None] + k1 * t1[..., None]) ** 2 / (t3**2 + t1**2)[..., None]
        ).sum()
    assert expected > 1
    assert float(CustomL2(network)().asnumpy()) == pytest.approx(expected, rel=1e-5)


def test_the_custom_l2_decays_kernels_and_never_batch_norms(network):
    import mindspore as ms

    from training.network import repvgg
    from training.optim.losses import CustomL2

    decay = CustomL2(network)
    names = [name for name, parameter in repvgg.weights(network).items() if parameter.requires_grad]
    parameters = ms.ParameterTuple([repvgg.weights(network)[name] for name in names])
    gradients = ms.grad(decay, None, parameters)()
    found = {name: gradient.asnumpy() for name, gradient in zip(names, gradients, strict=True)}
    for name, k3, k1, t3, t1 in blocks_of(network):
        t3, t1 = t3[..., None], t1[..., None]
        equivalent = k3[:, :, 1:2, 1:2] * t3 + k1 * t1
        outer = 2 * k3
        outer[:, :, 1:2, 1:2] = 2 * equivalent * t3 / (t3**2 + t1**2)
        narrow = 2 * equivalent * t1 / (t3**2 + t1**2)
        np.testing.assert_allclose(found.pop(f"{name}branch_3x3.conv.weight"), outer, atol=1e-5)
        np.testing.assert_allclose(found.pop(f"{name}branch_1x1.conv.weight"), narrow, atol=1e-5)
    assert all(not gradient.any() for gradient in found.values())
