"""Fits when a bundle's answers are confident, and its sets of labels; models.scores.confidence has the maths.

1. the threshold keeps a share of the right answers, or lets answers through that are right as often as stated;
2. with foreign images, evidence is weighted so that these are refused, if that refuses more of them than the certainty;
   the embedding is included if the engine gives one and it refuses even more;
3. images are judged with weights that were fitted without them, so that the figures hold for others.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.manifest import Confidence, Precision
from models.scores import confidence
from models.scores.confidence import Floats
from models.scores.topk import softmax
from service.errors import UsageError
from service.evaluation.calibration import Scores

FOLDS = 5
KEEP = 0.95


def fit(
    images: Scores, temperature: float, precision: Precision, accuracy: float | None = None, keep: float = KEEP
) -> Confidence:
    """The threshold is for answers of which `accuracy` are right or, if that is None, to `keep` a share of the right
    ones. Raises UsageError if no threshold or no quantile holds.
    """
    logits, foreign = images.logits, images.foreign_logits
    right = logits.argmax(axis=1) == np.asarray(images.truths)
    judged = _certainty(images, temperature)
    if min(len(foreign), int(right.sum())) >= FOLDS:
        candidates = [judged, *_weighed(images, temperature, right)]
        judged = max(candidates, key=lambda one: _refused(one.known[right], one.foreign, keep))
    scores = judged.known
    threshold = (
        confidence.threshold_that_keeps(scores[right], keep)
        if accuracy is None
        else confidence.threshold_for_accuracy(scores, right, accuracy)
    )
    quantiles = confidence.fit_quantiles(confidence.above_truth(softmax(logits, temperature), images.truths))
    if threshold is None or not quantiles:
        aim = f"--kept {keep:g}" if accuracy is None else f"--accuracy {accuracy:g}"
        raise UsageError(f"{aim}: no threshold holds for these {len(logits)} images; give more, or another share")
    confident = scores >= threshold
    return Confidence(
        fitted_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        images=len(logits),
        foreign_images=len(foreign),
        precision=precision,
        threshold=threshold - judged.bias,
        weights=judged.weights,
        embedding_weights=judged.embedding_weights,
        accuracy=float(right[confident].mean()),
        answered=float(confident.mean()),
        kept=float(confident[right].mean()),
        refused=float((judged.foreign < threshold).mean()) if len(foreign) else None,
        quantiles=quantiles,
    )


class _Judged(NamedTuple):
    """`known` (N,) and `foreign` (M,): how confident the answer is, judged without having seen the image."""

    known: Floats
    foreign: Floats
    weights: list[float] | None = None
    embedding_weights: list[float] | None = None
    bias: float = 0.0


def _certainty(images: Scores, temperature: float) -> _Judged:
    known, foreign = (confidence.confidence_of(each, temperature) for each in (images.logits, images.foreign_logits))
    return _Judged(known, foreign)


def _weighed(images: Scores, temperature: float, right: NDArray[np.bool_]) -> Iterator[_Judged]:
    """By the logits, and by the logits and the embedding."""
    known, foreign = (confidence.evidence(each, temperature) for each in (images.logits, images.foreign_logits))
    own = known.shape[1]
    yield _fitted(known, foreign, right, own)
    if images.embeddings:
        embedding, strange = images.embeddings
        yield _fitted(np.hstack([known, embedding]), np.hstack([foreign, strange]), right, own)


def _fitted(known: Floats, foreign: Floats, right: NDArray[np.bool_], own: int) -> _Judged:
    """The first `own` columns of the evidence are from the logits."""
    weights, bias = confidence.fit_weights(known[right], foreign)
    judged = _weighed_by_folds(known, right, foreign)
    return _Judged(*judged, weights[:own].tolist(), weights[own:].tolist() or None, bias)


def _refused(right: Floats, foreign: Floats, keep: float) -> float:
    """The fraction of foreign images below the threshold that keeps the right answers."""
    threshold = confidence.threshold_that_keeps(right, keep)
    return 0.0 if threshold is None else float((foreign < threshold).mean())


def _weighed_by_folds(known: Floats, right: NDArray[np.bool_], foreign: Floats) -> tuple[Floats, Floats]:
    """-> scores (N,) and (M,), each with weights that were fitted without its image. Images come class by class: every
    FOLDS-th is a fair sample."""
    scores, strange = np.zeros(len(known)), np.zeros(len(foreign))
    for fold in range(FOLDS):
        here, there = np.arange(len(known)) % FOLDS == fold, np.arange(len(foreign)) % FOLDS == fold
        weights, bias = confidence.fit_weights(known[right & ~here], foreign[~there])
        scores[here], strange[there] = known[here] @ weights + bias, foreign[there] @ weights + bias
    return scores, strange
