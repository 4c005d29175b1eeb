from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from models.scores.temperature import fit_temperature
from models.scores.topk import softmax


def drawn(images: int, temperature: float, classes: int = 5) -> tuple[NDArray[np.float32], list[int]]:
    """Logits, and true classes that were drawn with the probabilities of these logits at a temperature."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (images, classes)).astype(np.float32)
    shares = softmax(logits, temperature).cumsum(axis=1)
    return logits, [int(truth) for truth in (rng.random((images, 1)) > shares).sum(axis=1)]


def likelihood(logits: NDArray[np.float32], truths: Sequence[int], temperature: float) -> float:
    return float(np.log(softmax(logits, temperature)[range(len(truths)), truths]).mean())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_maximises_the_likelihood_of_the_true_labels(temperature: float) -> None:
    logits, truths = drawn(4000, temperature)
    fitted = fit_temperature(logits, truths)
    assert fitted == pytest.approx(temperature, rel=0.1)
    best = likelihood(logits, truths, fitted)
    assert all(best > likelihood(logits, truths, fitted * factor) for factor in (0.98, 1.02))


@pytest.mark.parametrize("images", [50, 0])
def test_if_there_is_no_such_temperature_none_is_given(images: int) -> None:
    logits, _ = drawn(images, 1.0)
    assert fit_temperature(logits, logits.argmax(axis=1).tolist()) is None
    assert fit_temperature(logits, logits.argmin(axis=1).tolist()) is None
