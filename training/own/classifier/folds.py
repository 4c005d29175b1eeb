"""Photos -> folds: each is held out once, by a head that saw neither it nor anything that belongs to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FOLDS = 5


def assign(labels: NDArray[np.int64], groups: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """(N,) class ids and groups -> (N,) the fold of each photo, 0..count-1.

    The largest groups are dealt out first, each to the fold that has the fewest photos of its classes: a class with two
    or more groups is in two or more folds, so that no head lacks it.
    """
    classes = int(labels.max()) + 1
    members = np.zeros((int(groups.max()) + 1, classes), np.int64)
    np.add.at(members, (groups, labels), 1)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(members))
    order = order[np.argsort(-members[order].sum(axis=1), kind="stable")]
    filled = np.zeros((count, classes), np.int64)
    fold_of = np.zeros(len(members), np.int64)
    for group in order:
        same = (filled * (members[group] > 0)).sum(axis=1)
        fold_of[group] = np.lexsort((filled.sum(axis=1), same))[0]
        filled[fold_of[group]] += members[group]
    return fold_of[groups]


def enough(labels: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """(K,) how many groups each class has."""
    pairs = np.unique(np.stack([labels, groups]), axis=1)[0]
    return np.bincount(pairs, minlength=int(labels.max()) + 1)


def count(labels: NDArray[np.int64], groups: NDArray[np.int64]) -> int:
    """The number of possible folds: as many as the class with most groups can fill, up to FOLDS."""
    return min(FOLDS, int(enough(labels, groups).max()))
