from __future__ import annotations

import numpy as np
import pytest

from service.drift import SAMPLED_SIDE, SIGNALS, input_signals


@pytest.mark.parametrize("side", [1, 8, SAMPLED_SIDE, 33, 224])
def test_mean_and_deviation_of_the_input(side: int) -> None:
    rng = np.random.default_rng(side)
    tensor = np.broadcast_to(rng.normal(0.3, 2.0, (3, 1, 1)), (3, side, side)).astype(np.float32)
    signals = input_signals(tensor)
    assert signals == {"input_mean": pytest.approx(tensor.mean()), "input_std": pytest.approx(tensor.std(), abs=1e-6)}


def test_a_large_input_is_known_by_a_part_of_its_pixels() -> None:
    """A ramp from dark to light: every seventh pixel of it has nearly the mean and deviation of all."""
    tensor = np.broadcast_to(np.linspace(-2, 2, 224, dtype=np.float32), (3, 224, 224))
    signals = input_signals(tensor)
    assert signals["input_mean"] == pytest.approx(tensor.mean(), abs=0.1)
    assert signals["input_std"] == pytest.approx(tensor.std(), rel=0.1)


def test_one_colour_has_no_contrast() -> None:
    assert input_signals(np.full((3, 32, 32), 1.7, np.float32))["input_std"] == pytest.approx(0.0, abs=1e-3)


def test_the_buckets_rise() -> None:
    for name, (_, bounds) in SIGNALS.items():
        assert list(bounds) == sorted(set(bounds)), name
