import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("cpu")


def scale_after(events, **keys):
    """(scale, overflows) after a sequence of updates; `x` is one that overflows."""
    import mindspore as ms

    from training.optim.loss_scale import LossScale

    scale = LossScale(8.0, **({"dynamic": True, "growth_interval": 3} | keys))
    for event in events:
        scale(ms.Tensor(event != "x"))
    return float(scale.scale.asnumpy()), int(scale.overflows.asnumpy())


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ("", (8, 0)),
        ("..", (8, 0)),
        ("...", (16, 0)),
        ("......", (32, 0)),
        ("x", (4, 1)),
        ("..x", (4, 1)),
        ("..x..", (4, 1)),
        ("..x...", (8, 1)),
        ("xxxxx", (1, 5)),
    ],
)
def test_a_dynamic_scale_halves_at_an_overflow_and_doubles_after_enough_updates_without(events, expected):
    assert scale_after(events) == expected


def test_a_static_scale_only_counts():
    assert scale_after("...x...x", dynamic=False) == (8, 2)


def test_a_scale_is_exhausted_when_it_cannot_get_smaller():
    from training.optim.loss_scale import LossScale

    assert LossScale(1.0, dynamic=True).exhausted
    assert not LossScale(2.0, dynamic=True).exhausted
    assert LossScale(1024.0, dynamic=False).exhausted


def levels(level):
    """Last part of the name -> the precisions in which cells of that name compute."""
    import mindspore as ms

    from training.network import repvgg
    from training.optim import loss_scale

    network = repvgg.build("RepVGG-Smoke", 3)
    loss_scale.set_precision(network, level)
    flags = {ms.float16: "fp16", ms.float32: "fp32"}
    found = {}
    for name, cell in network.cells_and_names():
        own = cell.get_flags()
        found.setdefault(name.rsplit(".", 1)[-1], set()).add(
            next((text for text in flags.values() if own.get(text)), "as it comes")
        )
    return {name: found[name] for name in ("conv", "bn", "relu", "classifier")}


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("O0", {"conv": "as it comes", "bn": "as it comes", "relu": "as it comes", "classifier": "as it comes"}),
        ("O1", {"conv": "fp16", "bn": "fp32", "relu": "as it comes", "classifier": "fp16"}),
        ("O2", {"conv": "fp16", "bn": "fp32", "relu": "fp16", "classifier": "fp16"}),
        ("O3", {"conv": "fp16", "bn": "fp16", "relu": "fp16", "classifier": "fp16"}),
    ],
)
def test_an_amp_level_decides_which_cells_compute_in_half_precision(level, expected):
    assert levels(level) == {name: {value} for name, value in expected.items()}


@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_the_network_gives_nearly_the_same_logits_in_half_precision(level):
    import mindspore as ms

    from training.network import repvgg
    from training.optim import loss_scale

    network = repvgg.build("RepVGG-Smoke", 3).set_train(False)
    images = ms.Tensor(np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32))
    exact = network(images).asnumpy()
    half = repvgg.build("RepVGG-Smoke", 3).set_train(False)
    for parameter, source in zip(half.get_parameters(), network.get_parameters(), strict=True):
        parameter.set_data(ms.Tensor(source.asnumpy()))
    loss_scale.set_precision(half, level)
    found = half(images).asnumpy().astype(np.float32)
    scale = np.abs(exact).max()
    assert 0 < np.abs(found - exact).max() < 0.02 * scale
