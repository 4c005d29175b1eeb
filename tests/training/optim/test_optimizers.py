"""Each optimizer against its formula in numpy, written from the papers, float64."""

from collections import OrderedDict

import numpy as np
import pytest

from training.config import build
from training.errors import ConfigError

pytestmark = pytest.mark.usefixtures("cpu")

STEPS = 6
RATES = [0.1 * (1 - step / STEPS) for step in range(STEPS)]
KEYS = {"momentum": 0.8, "beta": [0.7, 0.9], "weight_decay": 0.05, "epochs": 1}
KEYS |= {"lr_scheduler": "poly_lr", "base_lr": 0.1, "min_lr": 0.0}


def sgd(p, g, rate, decay, state, t):
    return p - rate * (g + decay * p)


def momentum(p, g, rate, decay, state, t):
    state["v"] = 0.8 * state.get("v", 0) + g + decay * p
    return p - rate * state["v"]


def nesterov(p, g, rate, decay, state, t):
    g = g + decay * p
    state["v"] = 0.8 * state.get("v", 0) + g
    return p - rate * (g + 0.8 * state["v"])


def adam(g, state, t, eps):
    state["m"] = 0.7 * state.get("m", 0) + 0.3 * g
    state["v"] = 0.9 * state.get("v", 0) + 0.1 * g**2
    return state["m"] / (1 - 0.7**t) / (np.sqrt(state["v"] / (1 - 0.9**t)) + eps)


def adamw(p, g, rate, decay, state, t):
    return p - rate * (adam(g, state, t, 1e-8) + decay * p)


def lamb(p, g, rate, decay, state, t):
    r = adam(g, state, t, 1e-6) + decay * p
    norms = np.linalg.norm(p), np.linalg.norm(r)
    return p - rate * (norms[0] / norms[1] if min(norms) > 0 and decay else 1) * r


def lion(p, g, rate, decay, state, t):
    m = state.get("m", 0)
    state["m"] = 0.9 * m + 0.1 * g
    return p - rate * (np.sign(0.7 * m + 0.3 * g) + decay * p)


def muon(p, g, rate, decay, state, t):
    """For everything except inner convolutions; those are in `orthogonalised`."""
    return nesterov(p, g, rate, decay, state, t)


def orthogonalised(p, g, rate, state, groups=1):
    """Each group of output channels is a matrix of its own."""
    state["v"] = 0.8 * state.get("v", 0) + g
    parts = zip(np.split(p, groups), np.split(g + 0.8 * state["v"], groups), strict=True)
    return np.concatenate([orthogonalised_matrix(part, direction, rate) for part, direction in parts])


def orthogonalised_matrix(p, direction, rate):
    """With a decomposition: the polynomial of the iteration is applied five times to each singular value."""
    u, s, vt = np.linalg.svd(direction.reshape(len(p), -1), full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    assert 0.6 < np.median(s) <= s.max() < 1.3, "roughly orthogonal"
    return np.sqrt(len(s)) * p / np.linalg.norm(p) - rate * (u * s @ vt).reshape(p.shape)


# How many arrays each optimizer keeps for a parameter; MindSpore's nn.SGD, which is two of them, always keeps two.
MOMENTS = {"sgd": 2, "momentum": 1, "nesterov": 2, "adamw": 2, "lamb": 2, "lion": 1, "muon": 1}
FORMULAS = {f.__name__: f for f in (sgd, momentum, nesterov, adamw, lamb, lion, muon)}


def test_every_optimizer_in_the_table_has_its_formula_here():
    from training.config.choices import OPTIMIZERS

    assert set(OPTIMIZERS) == set(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
def test_an_optimizer_is_its_formula(name):
    import mindspore as ms
    from mindspore import nn

    from training.optim.optimizers import build_optimizer

    rng = np.random.default_rng(1)
    network = nn.Dense(5, 3)
    expected = {"weight": rng.normal(size=(3, 5)), "bias": rng.normal(size=3)}  # the bias does not decay
    for key, value in expected.items():
        getattr(network, key).set_data(ms.Tensor(value.astype(np.float32)))
    optimizer = build_optimizer(network, build(KEYS | {"optimizer": name}, source="test"), STEPS)
    states = {"weight": {}, "bias": {}}
    for t, rate in enumerate(RATES, start=1):
        gradients = {key: rng.normal(size=value.shape) for key, value in expected.items()}
        optimizer(tuple(ms.Tensor(gradients[key].astype(np.float32)) for key in ("weight", "bias")))
        for key, decay in (("weight", 0.05), ("bias", 0.0)):
            expected[key] = FORMULAS[name](expected[key], gradients[key], rate, decay, states[key], t)
    for key, value in expected.items():
        np.testing.assert_allclose(getattr(network, key).asnumpy(), value, atol=2e-6, err_msg=key)
    assert int(optimizer.global_step.asnumpy()[0]) == STEPS


@pytest.mark.parametrize("name", FORMULAS)
def test_everything_but_the_classifier_learns_at_the_rate_of_the_backbone(name):
    import mindspore as ms
    from mindspore import nn

    from training.optim.optimizers import build_optimizer

    rng = np.random.default_rng(1)
    network = nn.SequentialCell(OrderedDict(body=nn.Dense(5, 3), classifier=nn.Dense(3, 2)))
    config = build(KEYS | {"optimizer": name, "backbone_lr": 0.25}, source="test")
    optimizer = build_optimizer(network, config, STEPS)
    expected = {p.name: p.asnumpy().astype(np.float64) for p in optimizer.parameters}
    states = {key: {} for key in expected}
    for t, rate in enumerate(RATES, start=1):
        gradients = {key: rng.normal(size=value.shape) for key, value in expected.items()}
        optimizer(tuple(ms.Tensor(gradients[p.name].astype(np.float32)) for p in optimizer.parameters))
        for key, value in expected.items():
            factor = 0.25 if key.startswith("body.") else 1
            decay = 0.05 * (value.ndim > 1)
            expected[key] = FORMULAS[name](value, gradients[key], factor * rate, decay, states[key], t)
    for parameter in optimizer.parameters:
        np.testing.assert_allclose(parameter.asnumpy(), expected[parameter.name], atol=2e-6, err_msg=parameter.name)


@pytest.mark.parametrize(("adamw_lr", "backbone_lr"), [(None, 1.0), (0.02, 1.0), (0.02, 0.5)])
def test_muon_orthogonalises_the_inner_kernels_and_uses_momentum_or_adamw_for_the_rest(adamw_lr, backbone_lr):
    import mindspore as ms

    from training.network import repvgg
    from training.optim.optimizers import build_optimizer, parameter_groups

    rng, network = np.random.default_rng(2), repvgg.build("RepVGG-Smoke", 3)
    keys = {"arch": "RepVGG-Smoke", "optimizer": "muon", "adamw_lr": adamw_lr, "backbone_lr": backbone_lr}
    config = build(KEYS | keys, source="test")
    optimizer = build_optimizer(network, config, STEPS)
    expected = {p.name: p.asnumpy().astype(np.float64) for p in optimizer.parameters}
    inner = names_of(parameter_groups(network, config)[0]["params"], network)
    assert inner == {name for name in expected if name.endswith("conv.weight") and not name.startswith("stages.0.")}, (
        "the stem is not a hidden layer"
    )
    states = {name: {} for name in expected}
    for t, rate in enumerate(RATES[:2], start=1):
        gradients = {name: rng.normal(size=value.shape) for name, value in expected.items()}
        optimizer(tuple(ms.Tensor(gradients[p.name].astype(np.float32)) for p in optimizer.parameters))
        for name, p in expected.items():
            own_rate = rate * (1 if name.startswith("classifier.") else backbone_lr)
            if name in inner:
                expected[name] = orthogonalised(p, gradients[name], own_rate, states[name])
            else:
                rule, its_rate = (adamw, 0.2 * own_rate) if adamw_lr else (nesterov, own_rate)
                expected[name] = rule(p, gradients[name], its_rate, 0.05 * (p.ndim > 1), states[name], t)
    for name, value in expected.items():
        found = repvgg.weights(network)[name].asnumpy()
        np.testing.assert_allclose(found, value, atol=2e-5 * np.abs(value).max(), err_msg=name)


def test_each_group_of_a_grouped_kernel_is_its_own_matrix(monkeypatch):
    import mindspore as ms

    from training.network import repvgg
    from training.optim.optimizers import build_optimizer
    from weights.variants import VARIANTS, Variant

    grouped = Variant((8, 16, 16, 16, 16), (1, 1, 2, 0, 0), groups=4)
    monkeypatch.setitem(VARIANTS, "RepVGG-Grouped", grouped)
    network, rng = repvgg.build("RepVGG-Grouped", 3), np.random.default_rng(3)
    config = build(KEYS | {"arch": "RepVGG-Grouped", "optimizer": "muon"}, source="test")
    optimizer = build_optimizer(network, config, STEPS)
    gradients = {p.name: rng.normal(size=p.shape) for p in optimizer.parameters}
    before = {p.name: p.asnumpy().astype(np.float64) for p in optimizer.parameters}
    optimizer(tuple(ms.Tensor(gradients[p.name].astype(np.float32)) for p in optimizer.parameters))
    groups = {block.name: block.groups for block in grouped.blocks()}
    assert sorted(groups.values()) == [1, 1, 1, 4]
    for block, count in groups.items():
        if block != "stages.0.0":
            for branch in ("branch_3x3", "branch_1x1"):
                name = f"{block}.{branch}.conv.weight"
                expected = orthogonalised(before[name], gradients[name], RATES[0], {}, count)
                found = repvgg.weights(network)[name].asnumpy()
                np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max(), err_msg=name)


def test_the_second_moments_of_muons_adamw_are_part_of_its_state():
    from training.network import repvgg
    from training.optim.optimizers import build_optimizer, optimizer_state, parameter_groups

    network, config = (
        repvgg.build("RepVGG-Tiny", 3),
        build({"arch": "RepVGG-Tiny", "optimizer": "muon", "adamw_lr": 0.003}, source="test"),
    )
    found = optimizer_state(build_optimizer(network, config, 2))
    others = len(network.trainable_params()) - len(parameter_groups(network, config)[0]["params"])
    assert len([name for name in found if name.startswith("optimizer.moments.")]) == len(network.trainable_params())
    assert len([name for name in found if name.startswith("optimizer.moment2.")]) == others > 0


@pytest.mark.parametrize("keys", [{"optimizer": "adamw"}, {"optimizer": "muon", "base_lr": 0}])
def test_adamw_lr_needs_muon_and_its_schedule(keys):
    with pytest.raises(ConfigError, match="adamw_lr is for optimizer: muon with a base_lr above 0"):
        build(keys | {"adamw_lr": 0.003}, source="test")


def test_muon_leaves_kernels_without_a_batch_norm_of_their_own_to_momentum():
    from training.network import repvgg
    from training.optim.optimizers import parameter_groups

    config = build({"optimizer": "muon"}, source="test")
    for arch, kernels in (("QARepVGG-Tiny", {"branch_3x3"}), ("RepVGG-D2se", {"branch_3x3", "branch_1x1"})):
        network = repvgg.build(arch, 3)
        kernels_of_muon, decayed, plain = (group["params"] for group in parameter_groups(network, config))
        assert {name.split(".")[3] for name in names_of(kernels_of_muon, network)} == kernels
        assert len(kernels_of_muon) + len(decayed) + len(plain) == len(network.trainable_params())


def names_of(parameters, network):
    by_identity = {id(parameter): name for name, parameter in network.parameters_and_names()}
    return {by_identity[id(parameter)] for parameter in parameters}


def test_batch_norms_and_biases_are_not_decayed():
    from training.network import repvgg
    from training.optim.optimizers import parameter_groups

    network = repvgg.build("RepVGG-Tiny", 3)
    decayed, plain = parameter_groups(network, build({"weight_decay": 0.5}, source="test"))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)
    assert {name.split(".")[-2] for name in names_of(decayed["params"], network)} == {"conv", "classifier"}
    assert {name.split(".")[-1] for name in names_of(plain["params"], network)} == {"gamma", "beta", "bias"}
    assert len(decayed["params"]) + len(plain["params"]) == len(network.trainable_params())


def test_the_1x1_kernels_of_qarepvgg_decay_like_any_kernel():
    from training.network import repvgg
    from training.optim.optimizers import parameter_groups

    network = repvgg.build("QARepVGG-Tiny", 3)
    decayed, plain = (
        names_of(group["params"], network) for group in parameter_groups(network, build({}, source="test"))
    )
    assert {"stages.0.0.branch_3x3.conv.weight", "stages.0.0.branch_1x1.weight", "classifier.weight"} <= decayed
    assert {name.split(".")[-1] for name in plain} == {"gamma", "beta", "bias"}


def test_with_the_custom_l2_no_kernel_decays_twice():
    from training.network import repvgg
    from training.optim.optimizers import parameter_groups

    network = repvgg.build("RepVGG-Tiny", 3)
    decayed, plain = parameter_groups(network, build({"custom_l2": True}, source="test"))
    assert names_of(decayed["params"], network) == {"classifier.weight"}
    assert len(decayed["params"]) + len(plain["params"]) == len(network.trainable_params())


@pytest.mark.parametrize("name", FORMULAS)
def test_the_optimizer_state_has_distinct_names_for_every_parameter(name):
    from training.network import repvgg
    from training.optim.optimizers import build_optimizer, optimizer_state

    network, config = repvgg.build("RepVGG-Tiny", 3), build({"optimizer": name}, source="test")
    found = optimizer_state(build_optimizer(network, config, 2))
    count = MOMENTS[name] * len(network.trainable_params())
    assert len(found) == count + 1
    assert not set(found) & set(repvgg.weights(network))
