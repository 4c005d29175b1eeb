"""The promises of models.scores.confidence, on logits with true classes drawn by the probabilities they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.scores.confidence import (
    LEVELS,
    above_truth,
    confidence_of,
    evidence,
    fit_quantiles,
    fit_weights,
    prediction_set,
    quantile_for,
    threshold_for_accuracy,
    threshold_that_keeps,
)
from models.scores.topk import softmax

CLASSES = 20


def drawn(images: int, seed: int, sharpness: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities and true classes. `sharpness`: the truth is drawn with logits so many times as large, so that the
    probabilities are wrong for every other value than 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (images, CLASSES)).astype(np.float32)
    shares = softmax(logits * np.float32(sharpness)).cumsum(axis=1)
    return softmax(logits), (rng.random((images, 1)) > shares).sum(axis=1)


def coverage(probabilities: NDArray[np.float64], truths: NDArray[np.int64], quantile: float) -> float:
    sets = [prediction_set(row, quantile) for row in probabilities]
    return float(np.mean([truth in labels for truth, labels in zip(truths, sets, strict=True)]))


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("level", [0.8, 0.9, 0.95, 0.99])
def test_sets_hold_the_truth_as_often_as_promised_however_wrong_the_scores_are(level: float, sharpness: float) -> None:
    fitted, truths = drawn(5000, 1, sharpness)
    quantile = quantile_for(fit_quantiles(above_truth(fitted, truths.tolist())), level)
    assert quantile is not None
    others, their_truths = drawn(20000, 2, sharpness)
    top1 = float((others.argmax(axis=1) == their_truths).mean())
    assert coverage(others, their_truths, quantile) == pytest.approx(max(level, top1), abs=0.01)


def test_a_shift_breaks_the_promise() -> None:
    """So the test above can fail: what was fitted on sharp images does not cover blurred ones."""
    fitted, truths = drawn(5000, 1, sharpness=2.0)
    quantile = quantile_for(fit_quantiles(above_truth(fitted, truths.tolist())), 0.9)
    assert quantile is not None
    assert coverage(*drawn(5000, 2, sharpness=0.5), quantile) < 0.8


def test_a_set_by_hand() -> None:
    """0.5, 0.3, 0.2: the second label has 0.5 above it, the third 0.8."""
    probabilities = np.array([0.2, 0.5, 0.3])
    assert prediction_set(probabilities, 0.0).tolist() == [1]
    assert prediction_set(probabilities, 0.4999).tolist() == [1]
    assert prediction_set(probabilities, 0.5).tolist() == [1, 2]
    assert prediction_set(probabilities, 1.0).tolist() == [1, 2, 0]
    assert above_truth(np.stack([probabilities] * 3), [1, 2, 0]) == pytest.approx([0.0, 0.5, 0.8])


def test_equal_probabilities_are_taken_by_class_id() -> None:
    assert prediction_set(np.full(4, 0.25), 0.3).tolist() == [0, 1]
    assert above_truth(np.full((1, 4), 0.25), [2]) == pytest.approx([0.5])


def test_between_two_levels_the_higher_one_counts() -> None:
    quantiles = {0.9: 0.5, 0.95: 0.7}
    assert [quantile_for(quantiles, asked) for asked in (0.1, 0.9, 0.901, 0.95, 0.951)] == [0.5, 0.5, 0.7, 0.7, None]


def test_levels_that_the_images_cannot_vouch_for_are_left_out() -> None:
    """Nine images: the largest of nine sums is reached by 9 of 10."""
    found = fit_quantiles(np.arange(1, 10) / 10)
    assert max(found) == 0.9
    assert found[0.9] == 0.9
    assert found[0.89] == 0.9
    assert fit_quantiles(np.array([])) == {}


def test_of_the_levels_that_the_best_label_reaches_the_highest_stays() -> None:
    found = fit_quantiles(np.array([0.0] * 70 + [0.4] * 29))
    assert min(found) == 0.7
    assert found[0.7] == 0.0
    assert found[0.71] == 0.4
    assert list(found) == sorted(found)
    assert set(found) <= set(LEVELS)


def test_the_threshold_for_an_accuracy_lets_as_many_through_as_it_can() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(4000)
    right = rng.random(4000) < scores  # a score of 0.8 is right in 80 % of the cases
    threshold = threshold_for_accuracy(scores, right, 0.9)
    assert threshold == pytest.approx(0.8, abs=0.03)  # the mean above 0.8 is 0.9
    assert right[scores >= threshold].mean() >= 0.9
    assert threshold_for_accuracy(scores, np.zeros(4000, bool), 0.9) is None
    assert threshold_for_accuracy(scores[:5], np.ones(5, bool), 0.9) is None
    assert threshold_for_accuracy(np.array([]), np.array([], bool), 0.9) is None


def test_equal_scores_are_on_the_same_side() -> None:
    scores, right = np.array([2.0] * 20 + [1.0] * 20), np.array([True] * 20 + [True] * 2 + [False] * 18)
    assert threshold_for_accuracy(scores, right, 0.9) == 2.0


def test_the_threshold_that_keeps_a_share() -> None:
    rng = np.random.default_rng(0)
    threshold = threshold_that_keeps(rng.normal(size=5000), 0.95)
    assert (rng.normal(size=20000) >= threshold).mean() == pytest.approx(0.95, abs=0.01)
    assert threshold_that_keeps(np.arange(19.0), 0.95) == 0.0
    assert threshold_that_keeps(np.arange(18.0), 0.95) is None


def test_certainty_is_1_for_one_class_and_0_for_equal_ones() -> None:
    logits = np.array([[0.0, 0.0, 0.0], [90.0, 0.0, 0.0]], np.float32)
    assert confidence_of(logits, 0.7) == pytest.approx([0.0, 1.0], abs=1e-12)
    assert confidence_of(logits[1], 1.0, [2.0, 0.1, 0.0, 1.0, 0.0, 0.0, 0.5]) == pytest.approx(11.0)


def test_evidence_is_the_certainty_the_logits_and_the_highest_of_them() -> None:
    logits = np.arange(12, dtype=np.float32)[::-1].copy()
    logits[0] = -5.0
    found = evidence(logits, 1.0)
    assert found[0] == confidence_of(logits, 1.0)
    assert found[1:13].tolist() == logits.tolist()
    assert found[13:].tolist() == [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


def test_weights_find_what_tells_two_kinds_apart() -> None:
    rng = np.random.default_rng(0)
    known, foreign = rng.normal(0, 1, (900, 6)), rng.normal(0, 1, (100, 6))
    known[:, 2] *= 30
    foreign[:, 2] *= 30
    foreign[:, 4] += 3  # everything else is noise
    weights, bias = fit_weights(known, foreign)
    assert weights[4] < 0
    assert abs(weights[4]) > 5 * np.abs(np.delete(weights, 4)).max()
    assert (known @ weights + bias > 0).mean() > 0.9
    assert (foreign @ weights + bias < 0).mean() > 0.9  # however few they are


def test_what_never_varies_has_no_say() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3))
    rows[:, 1] = 7.0
    weights, _ = fit_weights(rows[:25], rows[25:] + np.array([1.0, 0.0, 0.0]))
    assert weights[1] == 0.0
