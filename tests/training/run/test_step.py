"""The training step against numpy, on a network small enough to derive by hand: logits = weight @ mean of the image."""

import numpy as np
import pytest

from training.config import build

pytestmark = pytest.mark.usefixtures("cpu")

RNG = np.random.default_rng(4)
CLASSES, BATCH = 3, 4
WEIGHT = RNG.normal(0, 1, (CLASSES, 5)).astype(np.float32)
BATCHES = [(RNG.normal(0, 2, (BATCH, 5)).astype(np.float32), RNG.integers(0, CLASSES, BATCH)) for _ in range(8)]
RATE, DECAY = 0.5, 0.01
KEYS = {"lr_scheduler": "constant_lr", "base_lr": RATE, "weight_decay": DECAY, "label_smoothing": 0.2, "epochs": 8}


def made(**keys):
    """-> layer, optimizer, averaged layer and training step of a recipe with these keys."""
    import mindspore as ms
    from mindspore import nn

    from training.network.ema import Ema
    from training.optim.optimizers import build_optimizer
    from training.run.step import train_step

    config = build(KEYS | {"optimizer": "sgd"} | keys, source="test")
    layer = nn.Dense(5, CLASSES, has_bias=False, weight_init=ms.Tensor(WEIGHT))
    average = nn.Dense(5, CLASSES, has_bias=False)
    updates = build_optimizer(layer, config, 1)
    forgets = config.ema_forgets_start
    ema = Ema(layer, average, config.ema_decay, forgets_start=forgets) if config.with_ema else None
    return layer, updates, average, train_step(layer.set_train(), updates, config, ema)


def run(step, batch):
    import mindspore as ms

    inputs, labels = batch
    loss, right = step(ms.Tensor(inputs), ms.Tensor(labels.astype(np.int32)))
    return float(loss.asnumpy()), int(right.asnumpy())


def derived(weight, batch):
    """Loss, right answers and gradient of the mean loss, float64."""
    inputs, labels = batch
    logits = inputs.astype(np.float64) @ weight.T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    q = 0.8 * np.eye(CLASSES)[labels] + 0.2 / CLASSES
    return -(q * np.log(p)).sum(1).mean(), (logits.argmax(1) == labels).sum(), (p - q).T @ inputs / len(labels)


def weights_of(layer):
    return layer.weight.asnumpy()


def test_a_step_goes_down_the_gradient():
    layer, _, _, step = made()
    weight = WEIGHT.astype(np.float64)
    for batch in BATCHES[:3]:
        loss, right, gradient = derived(weight, batch)
        found = run(step, batch)
        assert found == (pytest.approx(loss, rel=1e-5), right)
        weight -= RATE * (gradient + DECAY * weight)
    np.testing.assert_allclose(weights_of(layer), weight, atol=1e-5)


def test_soft_targets_are_learnt_and_counted_by_their_most_likely_class():
    import mindspore as ms

    hard, soft = made(), made()
    inputs, labels = BATCHES[0]
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    expected = run(hard[3], BATCHES[0])
    loss, right = soft[3](ms.Tensor(inputs), ms.Tensor(targets))
    assert (float(loss.asnumpy()), int(right.asnumpy())) == (pytest.approx(expected[0], rel=1e-6), expected[1])
    np.testing.assert_allclose(weights_of(soft[0]), weights_of(hard[0]), atol=1e-6)


@pytest.mark.parametrize("limit", [0.1, 1e6])
def test_gradients_are_clipped_by_their_global_norm(limit):
    layer, _, _, step = made(clip_global_norm_value=limit)
    _, _, gradient = derived(WEIGHT, BATCHES[0])
    assert 0.1 < np.linalg.norm(gradient) < 1e6
    run(step, BATCHES[0])
    expected = WEIGHT - RATE * (gradient * min(1, limit / np.linalg.norm(gradient)) + DECAY * WEIGHT)
    np.testing.assert_allclose(weights_of(layer), expected, atol=1e-5)


def test_accumulated_batches_are_one_update_with_their_mean_gradient():
    layer, updates, _, step = made(accumulate_steps=3)
    for batch in BATCHES[:2]:
        run(step, batch)
        np.testing.assert_array_equal(weights_of(layer), WEIGHT)
    run(step, BATCHES[2])
    gradient = np.mean([derived(WEIGHT, batch)[2] for batch in BATCHES[:3]], axis=0)
    np.testing.assert_allclose(weights_of(layer), WEIGHT - RATE * (gradient + DECAY * WEIGHT), atol=1e-5)
    assert int(updates.global_step.asnumpy()[0]) == 1
    state = {name: parameter.asnumpy() for name, parameter in step.state.items()}
    assert state.pop("accumulated.count") == 0
    assert len(state) == 1
    assert not any(array.any() for array in state.values()), "the sums start anew"


@pytest.mark.parametrize("forgets", [True, False])
def test_the_average_follows_the_weights(forgets):
    layer, _, average, step = made(with_ema=True, ema_decay=0.2, ema_forgets_start=forgets)
    expected = WEIGHT.astype(np.float64)
    for before, batch in enumerate(BATCHES[:4]):
        run(step, batch)
        decay = min(0.2, (1 + before) / (10 + before)) if forgets else 0.2
        expected = decay * expected + (1 - decay) * weights_of(layer)
    np.testing.assert_allclose(weights_of(average), expected, atol=1e-5)


@pytest.mark.parametrize(("level", "dynamic"), [("O1", True), ("O2", False), ("O3", True)])
def test_half_precision_follows_float32_within_its_resolution(level, dynamic):
    layer, _, _, step = made(amp_level=level, is_dynamic_loss_scale=dynamic, loss_scale=1024)
    exact, _, _, exact_step = made()
    for batch in BATCHES[:3]:
        run(step, batch)
        run(exact_step, batch)
    assert layer.weight.dtype == exact.weight.dtype, "the weights themselves stay float32"
    difference = np.abs(weights_of(layer) - weights_of(exact)).max()
    assert 0 < difference < 0.01
    assert int(step.loss_scale.overflows.asnumpy()) == 0


@pytest.mark.parametrize("name", ["momentum", "nesterov", "sgd", "adamw", "lamb", "lion", "muon"])
def test_every_optimizer_runs_with_every_option_on(name):
    everything = {"amp_level": "O1", "loss_scale": 64, "with_ema": True, "accumulate_steps": 2}
    keys = {"optimizer": name, "base_lr": 0.01, "clip_global_norm_value": 0.5}
    exact, _, _, exact_step = made(**keys, accumulate_steps=2)
    layer, updates, average, step = made(**keys | everything)
    for batch in BATCHES[:4]:
        run(exact_step, batch)
        run(step, batch)
    assert int(updates.global_step.asnumpy()[0]) == 2
    moved, difference = np.abs(weights_of(exact) - WEIGHT).max(), np.abs(weights_of(layer) - weights_of(exact)).max()
    assert moved > 0.003
    assert difference < moved / 10
    assert 0 < np.abs(weights_of(average) - WEIGHT).max() < np.abs(weights_of(layer) - WEIGHT).max()


def test_an_overflow_is_skipped_and_counted_and_halves_a_dynamic_scale():
    layer, updates, average, step = made(amp_level="O1", loss_scale=2.0**20, with_ema=True)
    found = run(step, BATCHES[0])
    assert np.isfinite(found[0]), "the loss itself is not scaled"
    np.testing.assert_array_equal(weights_of(layer), WEIGHT)
    np.testing.assert_array_equal(weights_of(average), WEIGHT)
    assert int(updates.global_step.asnumpy()[0]) == 0, "the schedule waits, too"
    assert int(step.loss_scale.overflows.asnumpy()) == 1
    assert float(step.loss_scale.scale.asnumpy()) == 2.0**19
    for _ in range(20):
        if int(updates.global_step.asnumpy()[0]) == 0:
            run(step, BATCHES[0])
    _, _, gradient = derived(WEIGHT, BATCHES[0])
    np.testing.assert_allclose(weights_of(layer), WEIGHT - RATE * (gradient + DECAY * WEIGHT), atol=0.01)


def test_a_static_scale_does_not_change_at_an_overflow():
    layer, _, _, step = made(amp_level="O1", is_dynamic_loss_scale=False, loss_scale=2.0**20)
    for batch in BATCHES[:3]:
        run(step, batch)
    assert float(step.loss_scale.scale.asnumpy()) == 2.0**20
    assert int(step.loss_scale.overflows.asnumpy()) == 3
    assert step.loss_scale.exhausted
    np.testing.assert_array_equal(weights_of(layer), WEIGHT)


def test_an_overflowing_batch_affects_only_its_own_update():
    layer, updates, _, step = made(amp_level="O1", is_dynamic_loss_scale=False, loss_scale=64, accumulate_steps=2)
    inputs, labels = BATCHES[0]
    for batch in ((inputs * 1e4, labels), BATCHES[1], BATCHES[2], BATCHES[3]):
        run(step, batch)
    assert int(step.loss_scale.overflows.asnumpy()) == 1
    assert int(updates.global_step.asnumpy()[0]) == 1
    gradient = np.mean([derived(WEIGHT, batch)[2] for batch in BATCHES[2:4]], axis=0)
    np.testing.assert_allclose(weights_of(layer), WEIGHT - RATE * (gradient + DECAY * WEIGHT), atol=0.01)


def test_float32_has_no_loss_scale():
    *_, step = made(loss_scale=3.0)
    assert step.loss_scale is None
    assert step.state == {}


def test_the_state_of_a_step_holds_everything_to_restore():
    *_, step = made(amp_level="O1", accumulate_steps=2)
    assert {name.split(".")[0] for name in step.state} == {"loss_scale", "accumulated"}
    assert len(step.state) == 3 + 2
