"""Multinomial logistic regression on the features of a backbone.

1. the penalty is chosen by cross-validation, in groups, by the likelihood of the labels;
2. every photo's recorded logits come from a head that saw neither it nor its group, with a penalty that was chosen
   without it;
3. features are standardised for fitting, and the standardisation is folded into the classifier.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from models.explanation.head import Head
from models.scores.topk import softmax
from training.own.backbone import Floats
from training.own.photos.looking import cpus

Ids = NDArray[np.int64]
PENALTIES = np.logspace(-4, 1, 8)  # inverse: small is strong
UNEVEN = 3.0  # from this ratio of photos in the largest and the smallest class on, classes are weighted
STEPS = 300  # steps of the solver, which needs far fewer unless the penalty is weak


@dataclass(frozen=True)
class Fitted:
    """`logits` (N, K) of the photos that were fitted, each from the head of its fold, one of `heads`, that did not see
    it."""

    head: Head
    penalty: float
    logits: Floats
    heads: dict[int, Head]


def fit(rows: Floats, labels: Ids, penalty: float, *, balanced: bool) -> Head:
    """(N, C) features, (N,) class ids 0..K-1, each at least once."""
    mean, deviation = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    scale = 1.0 / np.where(deviation > 1e-6, deviation, 1.0)
    solver = LogisticRegression(C=penalty, max_iter=STEPS, tol=1e-3, class_weight="balanced" if balanced else None)
    solver.fit(((rows - mean) * scale).astype(np.float32), labels)
    weight, bias = solver.coef_.astype(np.float64) * scale, solver.intercept_.astype(np.float64)
    if len(weight) == 1:  # for two classes: the logit of the second
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return Head(weight.astype(np.float32), (bias - weight @ mean).astype(np.float32))


def cross_validate(rows: Floats, labels: Ids, folds: Ids, *, balanced: bool) -> Fitted:
    """Fit one head for each fold and penalty, and the final one on everything with the best penalty."""
    tasks = [(fold, penalty) for fold in np.unique(folds) for penalty in PENALTIES]

    def held_out(task: tuple[int, float]) -> Head:
        seen = folds != task[0]
        return fit(rows[seen], labels[seen], task[1], balanced=balanced)

    tried: dict[tuple[int, int], Head] = {}
    logits = np.zeros((len(PENALTIES), len(labels), int(labels.max()) + 1), np.float32)
    with _one_thread_each(), ThreadPoolExecutor(cpus()) as pool:
        for (fold, penalty), found in zip(tasks, pool.map(held_out, tasks), strict=True):
            place = list(PENALTIES).index(penalty)
            tried[int(fold), place] = found
            logits[place, folds == fold] = found(rows[folds == fold])
    surprise = np.stack([surprises(one, labels) for one in logits])
    chosen, heads = np.empty_like(logits[0]), {}
    for fold in np.unique(folds):
        others = folds != fold
        place = int(surprise[:, others].mean(axis=1).argmin())
        chosen[~others], heads[int(fold)] = logits[place, ~others], tried[int(fold), place]
    penalty = float(PENALTIES[surprise.mean(axis=1).argmin()])
    with _one_thread_each():
        return Fitted(fit(rows, labels, penalty, balanced=balanced), penalty, chosen, heads)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Threads of the matrix products would fight with those of the folds. A fit that ends early after STEPS is good
    enough."""
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def surprises(logits: Floats, labels: Ids) -> NDArray[np.float64]:
    """(N, K) logits, (N,) class ids -> (N,) -log of the true class's score."""
    scores = softmax(logits)[np.arange(len(labels)), labels]
    found: NDArray[np.float64] = -np.log(np.maximum(scores, np.finfo(np.float64).tiny))
    return found


def is_uneven(labels: Ids) -> bool:
    counts = np.bincount(labels)
    return bool(counts.max() > UNEVEN * counts.min())


def of_ids(ids: Iterable[str], classes: tuple[str, ...]) -> Ids:
    """Labels -> class ids."""
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number[label] for label in ids], np.int64)
