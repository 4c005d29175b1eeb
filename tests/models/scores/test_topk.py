"""The promises of models.scores.topk."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.manifest import Labels
from models.scores.topk import Prediction, doubt, entropy, sigmoid, softmax, top_k

finite = st.floats(-(2.0**100), 2.0**100, width=32)
# Integers often tie; large values make all scores but one vanish.
Row = st.lists(st.integers(-3, 3).map(float) | finite, min_size=1, max_size=40)


def array(values: object) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def test_softmax_by_hand() -> None:
    """e^0 : e^ln2 : e^ln5 = 1 : 2 : 5."""
    assert softmax(array([0.0, math.log(2), math.log(5)])) == pytest.approx([1 / 8, 2 / 8, 5 / 8], rel=1e-7)


def test_softmax_of_a_batch_is_the_softmax_of_each_row() -> None:
    batch = np.random.default_rng(3).normal(0, 5, (2, 4, 7)).astype(np.float32)
    rows = [softmax(row) for row in batch.reshape(8, 7)]
    assert np.array_equal(softmax(batch), np.reshape(rows, (2, 4, 7)))


@given(Row)
def test_scores_sum_to_1_over_all_classes(logits: list[float]) -> None:
    scores = softmax(array(logits))
    assert abs(math.fsum(scores) - 1.0) < 1e-12
    assert all(0.0 <= score <= 1.0 for score in scores)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=40), st.integers(-100_000, 100_000))
def test_adding_a_constant_to_all_logits_does_not_change_the_scores(logits: list[int], shift: int) -> None:
    """Integers, because float32 would round the shifted logits themselves."""
    assert np.array_equal(softmax(array(logits)), softmax(array(logits) + np.float32(shift)))


@given(Row, st.floats(0.01, 100))
def test_a_temperature_never_changes_the_order_and_1_changes_nothing(logits: list[float], temperature: float) -> None:
    scores, at_temperature = softmax(array(logits)), softmax(array(logits), temperature)
    assert np.array_equal(softmax(array(logits), 1.0), scores)
    order = np.argsort(array(logits), kind="stable")
    assert (np.diff(at_temperature[order]) >= 0).all()
    assert at_temperature.max() == at_temperature[logits.index(max(logits, key=np.float32))]
    if temperature > 1:
        assert at_temperature.max() <= scores.max()


def test_a_temperature_divides_the_logits() -> None:
    assert softmax(array([0.0, 3.0]), 1.5) == pytest.approx(softmax(array([0.0, 2.0])))


def test_entropy_by_hand() -> None:
    """(1/2, 1/2, 0, 0) has one bit of two possible."""
    assert entropy(np.array([0.5, 0.5, 0.0, 0.0])) == pytest.approx(0.5)
    assert entropy(np.array([1.0])) == 0.0


@given(Row)
def test_entropy_is_0_for_one_certain_class_and_1_for_equal_scores(logits: list[float]) -> None:
    assert 0.0 <= entropy(softmax(array(logits))) <= 1.0
    if len(logits) > 1:
        assert entropy(np.eye(len(logits))[0]) == 0.0
        assert entropy(np.full(len(logits), 1 / len(logits))) == pytest.approx(1.0)


@given(Row, st.data())
def test_predictions_are_sorted_by_descending_score_ties_by_class_id(logits: list[float], data: st.DataObject) -> None:
    labels = [f"class {index}" for index in range(len(logits))]
    k = data.draw(st.integers(1, len(logits)))
    best = top_k(softmax(array(logits)), labels, k)
    assert len(best) == k
    assert best == sorted(best, key=lambda prediction: (-prediction.score, prediction.class_id))
    assert all(prediction.label == labels[prediction.class_id] for prediction in best)
    assert best[0].class_id == logits.index(max(logits, key=np.float32))
    left_out = set(range(len(logits))) - {prediction.class_id for prediction in best}
    scores = softmax(array(logits))
    assert all((scores[index], -index) <= (best[-1].score, -best[-1].class_id) for index in left_out)


@given(Row)
def test_fewer_predictions_are_a_prefix_of_more(logits: list[float]) -> None:
    labels = [str(index) for index in range(len(logits))]
    everything = top_k(softmax(array(logits)), labels, len(logits))
    assert all(top_k(softmax(array(logits)), labels, k) == everything[:k] for k in range(1, len(logits)))


def test_ties_are_sorted_by_class_id() -> None:
    best = top_k(softmax(array([1.0, 2.0, 1.0, 2.0])), ["a", "b", "c", "d"], 4)
    assert [prediction.label for prediction in best] == ["b", "d", "a", "c"]


def test_predictions_contain_plain_python_values() -> None:
    """So that any JSON encoder can write them."""
    (prediction,) = top_k(softmax(array([0.0])), ["only"], 1)
    assert prediction == Prediction("only", 0, 1.0)
    assert (type(prediction.class_id), type(prediction.score)) == (int, float)


def test_two_classes_may_have_the_same_label() -> None:
    """ImageNet has two cranes and two maillots."""
    best = top_k(softmax(array([0.0, 1.0])), ["crane", "crane"], 2)
    assert [(prediction.label, prediction.class_id) for prediction in best] == [("crane", 1), ("crane", 0)]


@pytest.mark.parametrize("k", [-1, 0, 4])
def test_a_k_out_of_range_is_rejected(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k must be in 1..3, not {k}"):
        top_k(softmax(array([1.0, 2.0, 3.0])), ["a", "b", "c"], k)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_never_become_predictions(wrong: float) -> None:
    with pytest.raises(ValueError, match="the logits are not finite"):
        top_k(softmax(array([1.0, wrong, 3.0])), ["a", "b", "c"], 1)


def test_logits_are_not_accepted_as_scores() -> None:
    with pytest.raises(ValueError, match="apply softmax to the logits first"):
        top_k(np.array([1.0, 2.0, 3.0]), ["a", "b", "c"], 1)


@pytest.mark.parametrize("logits", [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [[1.0, 2.0, 3.0]], 1.0])
def test_logits_that_are_not_one_per_label_never_become_predictions(logits: object) -> None:
    with pytest.raises(ValueError, match="3 labels need as many scores"):
        top_k(softmax(array(logits)), ["a", "b", "c"], 1)


def test_sigmoid_by_hand_and_of_logits_that_would_overflow() -> None:
    """1 / (1 + e^-ln3) = 3/4; at temperature 2 the logit is ln(sqrt 3)."""
    assert sigmoid(array([0.0, math.log(3), -math.log(3)])) == pytest.approx([1 / 2, 3 / 4, 1 / 4], rel=1e-6)
    assert sigmoid(array([math.log(3)]), 2.0) == pytest.approx([math.sqrt(3) / (1 + math.sqrt(3))], rel=1e-6)
    assert sigmoid(array([-1e30, 1e30])).tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="not finite"):
        sigmoid(array([math.nan]))


def test_where_several_labels_may_apply_scores_need_not_add_up_and_are_compared_with_thresholds() -> None:
    kind = Labels(file="labels.txt", sha256="0" * 64, multi=True, thresholds=[0.5, 0.95])
    scores = np.array([0.5, 0.9])
    assert top_k(scores, ["cat", "dog"], 2, kind=kind) == [
        Prediction("dog", 1, 0.9, applies=False),
        Prediction("cat", 0, 0.5, applies=True),
    ]
    with pytest.raises(ValueError, match="not probabilities"):
        top_k(scores, ["cat", "dog"], 2)


def test_labels_that_are_surely_there_or_not_leave_no_doubt() -> None:
    assert doubt(np.array([0.0, 1.0, 1.0])) == 0.0
    assert doubt(np.array([0.5, 0.5])) == 1.0
