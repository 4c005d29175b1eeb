import numpy as np

from training.own.classifier import folds


def test_groups_stay_together_and_classes_are_spread():
    rng = np.random.default_rng(0)
    for _ in range(50):
        groups = np.unique(rng.integers(0, 60, 200), return_inverse=True)[1]
        labels = np.unique(rng.integers(0, 4, groups.max() + 1)[groups], return_inverse=True)[1]
        parts = folds.assign(labels, groups, 5, seed=1)
        assert all(len(set(parts[groups == group])) == 1 for group in np.unique(groups))
        for label in np.unique(labels):
            counts = np.bincount(parts[labels == label], minlength=5)
            assert counts.max() - counts.min() <= np.bincount(groups).max()


def test_a_class_of_two_photos_is_in_two_folds():
    labels = np.array([0] * 40 + [1] * 2)
    for seed in range(20):
        parts = folds.assign(labels, np.arange(42), 5, seed)
        assert len(set(parts[40:])) == 2
        assert np.bincount(parts).min() >= 8


def test_folds_are_repeatable_and_depend_on_the_seed():
    labels, groups = np.arange(60) % 3, np.arange(60)
    assert (folds.assign(labels, groups, 5, 0) == folds.assign(labels, groups, 5, 0)).all()
    assert (folds.assign(labels, groups, 5, 0) != folds.assign(labels, groups, 5, 1)).any()


def test_copies_count_once():
    labels, groups = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 2])
    assert folds.enough(labels, groups).tolist() == [1, 2]
    assert folds.count(labels, groups) == 2
