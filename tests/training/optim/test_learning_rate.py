import math
import sys

import pytest
from PIL import Image

from training.config import build
from training.config.choices import SCHEDULES
from training.errors import TrainingError
from training.optim.learning_rate import Curve, learning_rates, rates
from training.schedules import main


def curve(**values):
    return Curve(**({"base_lr": 1.0, "total_steps": 100, "steps_per_epoch": 10} | values))


CLOSED_FORMS = {
    "cosine_lr": lambda step: 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 20) / 80)) / 2,
    "multistep_lr": lambda step: 1.0 if step < 30 else 0.2 if step < 70 else 0.04,
    "exp_lr": lambda step: max(0.1, math.exp(math.log(0.5) * (step - 20) / 10)),
    "poly_lr": lambda step: 0.1 + 0.9 * ((100 - step) / 80) ** 3,
    "wsd_lr": lambda step: 1.0 if step < 60 else 0.1 + 0.9 * ((100 - step) / 40) ** 3,
    "constant_lr": lambda step: 1.0,
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_schedule_is_its_closed_form(name):
    keys = {"min_lr": 0.1, "milestones": (3, 7), "gamma": 0.2, "decay": 0.5, "power": 3, "cooldown_steps": 40}
    found = rates(name, curve(warmup_steps=20, **keys))
    assert found[20:] == pytest.approx([CLOSED_FORMS[name](step) for step in range(20, 100)])


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_warm_up_rises_linearly_to_the_base_rate(name):
    found = rates(name, curve(base_lr=0.1, warmup_lr=0.02, warmup_steps=4))
    assert found[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup_steps", [0, 7, 100])
def test_there_is_one_rate_per_update(name, warmup_steps):
    found = rates(name, curve(warmup_steps=warmup_steps))
    assert len(found) == 100
    assert all(0 <= rate <= 1 for rate in found)


def test_the_cosine_ends_at_the_minimum_rate():
    assert rates("cosine_lr", curve(total_steps=10_000, min_lr=0.1))[-1] == pytest.approx(0.1, abs=1e-6)


def test_a_minimum_rate_above_the_base_rate_does_not_raise_exp_lr():
    assert set(rates("exp_lr", curve(base_lr=0.01, min_lr=0.1))) == {0.01}


def test_a_warm_up_longer_than_the_run_is_rejected():
    with pytest.raises(ValueError, match="is longer than the run of 5 steps"):
        curve(total_steps=5, warmup_steps=6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_recipe_keys_determine_the_curve(name):
    keys = {"lr_milestones": [2, 3], "lr_gamma": 0.5, "lr_decay": 0.8, "lr_power": 2, "min_lr": 0.01}
    keys |= {"cooldown_length": 2}
    config = build(keys | {"lr_scheduler": name, "epochs": 4, "warmup_length": 1, "warmup_lr": 0.02}, source="test")
    expected = curve(
        base_lr=0.1,
        total_steps=40,
        warmup_lr=0.02,
        warmup_steps=10,
        min_lr=0.01,
        milestones=(2, 3),
        gamma=0.5,
        decay=0.8,
        power=2,
        cooldown_steps=20,
    )
    assert learning_rates(config, 10) == rates(name, expected)


def test_a_run_can_be_extended_before_its_cool_down():
    keys = {"lr_scheduler": "wsd_lr", "cooldown_length": 2, "warmup_length": 1}
    short, long = (learning_rates(build(keys | {"epochs": epochs}, source="test"), 10) for epochs in (5, 9))
    assert short[:30] == long[:30]
    assert short[30:] == long[70:]


def test_accumulated_batches_make_one_update():
    config = build(
        {"epochs": 3, "accumulate_steps": 4, "lr_scheduler": "multistep_lr", "lr_milestones": [2]}, source="test"
    )
    assert learning_rates(config, 10) == pytest.approx([0.1] * 5 + [0.01] * 2)


def test_a_run_without_a_single_update_is_rejected():
    with pytest.raises(TrainingError, match=r"accumulate_steps \(31\)"):
        learning_rates(build({"epochs": 3, "accumulate_steps": 31}, source="test"), 10)


def test_the_curve_is_drawn(tmp_path, capsys):
    path = tmp_path / "curves" / "lr.png"
    assert main(["--epochs", "20", "--warmup_length", "2", "--plot", str(path), "--steps_per_epoch", "50"]) == 0
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (1400, 760))
    assert "1000 updates, from 7e-08 up to 0.1, then to" in capsys.readouterr().out


def test_without_matplotlib_nothing_is_drawn_and_the_way_out_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["--plot", str(tmp_path / "lr.png")]) == 78
    assert capsys.readouterr().err == "error: charts need matplotlib: pip install 'repvgg[charts]'\n"
    assert not (tmp_path / "lr.png").exists()
