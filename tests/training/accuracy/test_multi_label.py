import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from models.scores.topk import sigmoid
from training.accuracy.multi_label import NO_THRESHOLD, LabelScores, average_precision

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("decimals", [0, 6])
def test_average_precision_is_that_of_scikit_learn_with_ties_too(decimals):
    for _ in range(20):
        scores, truth = RNG.normal(0, 1, 40).round(decimals), (RNG.random(40) < 0.3).astype(np.float32)
        truth[0] = 1
        assert average_precision(scores, truth) == pytest.approx(average_precision_score(truth, scores))


def test_a_threshold_is_the_one_with_the_best_f1():
    logits = RNG.normal(0, 2, (60, 3)).astype(np.float32)
    truths = (logits + RNG.normal(0, 2, logits.shape) > 1).astype(np.float32)
    scores = sigmoid(logits)
    for column, threshold in enumerate(LabelScores(logits, truths).thresholds):
        tried = [f1_score(truths[:, column], scores[:, column] >= one) for one in scores[:, column]]
        assert f1_score(truths[:, column], scores[:, column] >= threshold) == pytest.approx(max(tried))


def test_a_label_that_no_image_shows_has_no_precision_and_no_fitted_threshold():
    scores = LabelScores(np.float32([[3, 1], [-2, 0]]), np.float32([[1, 0], [0, 0]]))
    assert scores.average_precisions(["cat", "gnu"]) == {"cat": 1.0}
    assert scores.mean_average_precision == 1.0
    assert scores.thresholds[1] == NO_THRESHOLD
    assert scores.hits(1) == 0.5
