import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from models.scores.topk import softmax
from training.own.classifier import head
from training.own.classifier.figures import Answers, wilson
from training.own.classifier.folds import assign
from training.own.sizes import choose


def drawn(count, classes, seed=0, spread=1.0, features=12):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    rows = 5 + 3 * (rng.normal(0, 1, (count, features)) + spread * rng.normal(0, 1, (classes, features))[labels])
    return rows.astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_standardisation_is_folded_into_the_classifier(classes):
    rows, labels = drawn(100, classes)
    rows[:, 3] = 7.0  # a dead channel
    found = head.fit(rows, labels, 0.1, balanced=False)
    scale = np.where(rows.std(axis=0) > 1e-6, rows.std(axis=0), 1)
    standard = (rows - rows.mean(axis=0)) / scale
    reference = LogisticRegression(C=0.1, tol=1e-3).fit(standard, labels).predict_proba(standard)
    assert np.abs(softmax(found(rows)) - reference).max() < 1e-4


def test_photos_are_answered_by_heads_that_did_not_see_them():
    """Features that say nothing: whoever sees the labels of 60 photos in 200 dimensions is always right."""
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(0, 1, (60, 200)).astype(np.float32), np.arange(60) % 3
    fitted = head.cross_validate(rows, labels, assign(labels, np.arange(60), 5, 0), balanced=False)
    assert (fitted.logits.argmax(axis=1) == labels).mean() < 0.6
    assert fitted.penalty <= head.PENALTIES[1]


def test_with_good_features_nearly_all_are_right():
    rows, labels = drawn(200, 4, spread=2.0)
    fitted = head.cross_validate(rows, labels, assign(labels, np.arange(200), 5, 0), balanced=False)
    assert (fitted.logits.argmax(axis=1) == labels).mean() > 0.9
    assert (fitted.head(rows).argmax(axis=1) == labels).mean() > 0.9


def test_uneven_classes_are_weighted():
    assert head.is_uneven(np.array([0] * 31 + [1] * 10))
    assert not head.is_uneven(np.array([0] * 30 + [1] * 10))
    rows, labels = drawn(200, 2, spread=0.3)
    few = np.flatnonzero((labels == 0) | (np.arange(200) < 20))
    plain, weighted = (head.fit(rows[few], labels[few], 0.01, balanced=choice) for choice in (False, True))
    assert (weighted(rows).argmax(axis=1) == 1).sum() > (plain(rows).argmax(axis=1) == 1).sum()


def test_the_interval_is_wilsons():
    """Values of Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)


def test_figures_of_each_class():
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 1]]
    answers = Answers(np.arange(6), np.array([0, 0, 0, 1, 2, 2]), logits, 1.0, "a test")
    names = ("a", "b", "c")
    assert answers.accuracy == pytest.approx(4 / 6)
    assert answers.confusion.tolist() == [[2, 1, 0], [0, 1, 0], [0, 1, 1]]
    a, b, c = answers.classes(names)
    assert (a.images, a.recall, a.precision) == (3, pytest.approx(2 / 3), 1.0)
    assert (b.recall, b.precision, b.f1) == (1.0, pytest.approx(1 / 3), 0.5)
    assert answers.macro_f1(names) == pytest.approx((a.f1 + b.f1 + c.f1) / 3)
    assert answers.confusions(names, 5) == [("a", "b", 1), ("c", "b", 1)]


def test_a_larger_size_must_be_better_by_more_than_the_standard_error():
    rng = np.random.default_rng(0)
    base = rng.exponential(1, 400)
    noise = rng.normal(0, 0.5, 400)
    assert choose({32: base, 64: base + noise - noise.mean() - 0.01}) == 32
    assert choose({32: base, 64: base + noise - noise.mean() - 0.1}) == 64
