"""How far an answer can be trusted: sets of labels that contain the true one as often as promised, and thresholds for
the best label.

1. a set of labels holds the truth with at least the requested probability, for images that are exchangeable with those
   of the fit: drawn the same way, from the same source;
2. a set is never empty, and equal logits always give the same set;
3. between two fitted levels, the higher one is used;
4. too few images for a level or a share give none, instead of one that does not hold;
5. everything is computed from logits, which every engine gives.

Sources: Romano, Sesia and Candes 2020, "Classification with Valid and Adaptive Coverage" (adaptive prediction sets);
Angelopoulos and Bates 2021, "A Gentle Introduction to Conformal Prediction", sections 1 and 2.1.

The sets here are not randomised, so that a photo does not get one set now and another one later. A label belongs to the
set if the labels above it together have at most the quantile, not counting its own probability: the best label is
always included, and the promise is kept exactly, up to 1 / (images + 1), if it exceeds the accuracy of the best label.
Below that, the best label alone holds the truth more often than requested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.manifest import HIGHEST
from models.scores.topk import entropy, softmax

Floats = NDArray[np.float64]
# The coverages that sets can be fitted for. Closer together where an error of a point matters most.
LEVELS = tuple(round(percent / 100, 3) for percent in (*range(50, 100), 99.5, 99.9))
RIDGE = 0.1  # on the fitted weights
STEPS = 50  # of Newton's method, which needs about ten
CERTAIN = 30.0  # log-odds


def _above(probabilities: Floats) -> tuple[NDArray[np.intp], Floats]:
    """(..., K) -> class ids from best to worst, ties by class id, and the sum of the probabilities above each."""
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    sums = np.take_along_axis(probabilities, order, axis=-1).cumsum(axis=-1)
    return order, np.concatenate([np.zeros_like(sums[..., :1]), sums[..., :-1]], axis=-1)


def above_truth(probabilities: Floats, truths: Sequence[int]) -> Floats:
    """(N, K) probabilities, true classes -> (N,): the sum of the probabilities above the true label."""
    order, sums = _above(probabilities)
    places = (order == np.asarray(truths)[:, np.newaxis]).argmax(axis=1)
    return np.take_along_axis(sums, places[:, np.newaxis], axis=1)[:, 0]


def fit_quantiles(sums: Floats) -> dict[float, float]:
    """(N,) of above_truth -> the quantile for each of LEVELS that this many images can support. Levels that the best
    label alone reaches are left out, except the highest of them."""
    ordered, found = np.sort(sums), dict[float, float]()
    for level in LEVELS:
        rank = math.ceil((len(ordered) + 1) * level)
        if rank <= len(ordered):
            quantile = float(ordered[rank - 1])
            if quantile == 0.0:
                found.clear()
            found[level] = quantile
    return found


def quantile_for(quantiles: Mapping[float, float], coverage: float) -> float | None:
    """The quantile of the lowest level that is not below `coverage`; None if there is none."""
    level = min((level for level in quantiles if level >= coverage), default=None)
    return None if level is None else quantiles[level]


def prediction_set(probabilities: Floats, quantile: float) -> NDArray[np.intp]:
    """(K,) -> the class ids of the set, best first; at least one."""
    order, sums = _above(probabilities)
    return order[: np.searchsorted(sums, quantile, side="right")]


def threshold_for_accuracy(scores: Floats, right: NDArray[np.bool_], accuracy: float) -> float | None:
    """The lowest threshold from which on at least `accuracy` of the answers are right; None if there is none.

    scores: (N,), higher is more certain; right: (N,). One extra wrong answer is counted, so that a few lucky images at
    the top are not enough.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    wrong = (~right[order]).cumsum()
    answered = np.arange(1, len(ordered) + 1)
    last_of_equals = np.append(ordered[1:] < ordered[:-1], True)[: len(ordered)]
    holds = last_of_equals & ((wrong + 1) / (answered + 1) <= 1 - accuracy)
    return float(ordered[holds][-1]) if holds.any() else None


def threshold_that_keeps(scores: Floats, share: float) -> float | None:
    """The highest threshold that a score like these (N,) reaches with a probability of `share`; None for too few."""
    rank = math.floor((len(scores) + 1) * (1 - share) + 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank else None


def evidence(logits: NDArray[np.float32], temperature: float, embedding: NDArray[np.float32] | None = None) -> Floats:
    """(..., K) logits -> (..., 1 + K + min(K, HIGHEST)): the certainty, which is 1 if all probability is on one class
    and 0 if all classes have the same; the logits; and the highest of them, best first. An `embedding` (..., C)
    follows."""
    certainty = 1.0 - entropy(softmax(logits, temperature))
    highest = -np.sort(-logits, axis=-1)[..., :HIGHEST]
    pieces = (certainty[..., np.newaxis], logits, highest, logits[..., :0] if embedding is None else embedding)
    return np.concatenate(pieces, axis=-1, dtype=np.float64)


def confidence_of(
    logits: NDArray[np.float32],
    temperature: float,
    weights: Sequence[float] | None = None,
    embedding: NDArray[np.float32] | None = None,
) -> Floats:
    """(..., K) logits -> (...), higher is more certain: the certainty or, with `weights`, the weighted sum of the
    evidence, which includes an `embedding` (..., C) if the weights were fitted with it."""
    if weights is None:
        return 1.0 - entropy(softmax(logits, temperature))
    return np.asarray(evidence(logits, temperature, embedding) @ np.asarray(weights))


def fit_weights(known: Floats, foreign: Floats) -> tuple[Floats, float]:
    """(N, F) evidence of known things and (M, F) of foreign ones -> weights (F,) and bias of the logistic regression
    that separates them: positive for known ones. Both kinds have the same total weight, however many there are of each.

    Newton's method, with a ridge penalty on the standardised evidence.
    """
    rows = np.concatenate([known, foreign])
    truths = np.repeat([1.0, 0.0], [len(known), len(foreign)])
    shares = np.repeat([0.5 / len(known), 0.5 / len(foreign)], [len(known), len(foreign)])
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    scale = 1.0 / np.where(deviation > 1e-9, deviation, 1.0)
    inputs = np.column_stack([(rows - mean) * scale, np.ones(len(rows))])
    penalty = np.diag([RIDGE] * len(mean) + [0.0])
    solution = np.zeros(len(penalty))
    for _ in range(STEPS):
        found = 1.0 / (1.0 + np.exp(-np.clip(inputs @ solution, -CERTAIN, CERTAIN)))
        slope = inputs.T @ (shares * (truths - found)) - penalty @ solution
        curvature = (inputs * (shares * found * (1 - found))[:, np.newaxis]).T @ inputs + penalty
        step = np.linalg.solve(curvature, slope)
        solution += step
        if np.abs(step).max() < 1e-6:
            break
    weights = solution[:-1] * scale
    return weights, float(solution[-1] - weights @ mean)
