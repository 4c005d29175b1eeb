"""Fits when a bundle's answers are confident, and its sets of labels; models.confidence has the maths.

1. the threshold keeps a share of the right answers, or lets answers through that are right as often as stated;
2. with foreign images, evidence is weighed so that these are refused, if that refuses more of them than the certainty;
3. images are judged with weights that were fitted without them, so that the figures hold for others.
"""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray

from models import confidence
from models.confidence import Floats
from models.manifest import Confidence, Precision
from models.topk import softmax
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
    known, strange = (confidence.evidence(each, temperature) for each in (logits, foreign))
    scores, strange_scores, weights, bias = known[:, 0], strange[:, 0], None, 0.0
    if min(len(foreign), int(right.sum())) >= FOLDS:
        by_folds = _weighed_by_folds(known, right, strange)
        if _refused(by_folds[0][right], by_folds[1], keep) > _refused(scores[right], strange_scores, keep):
            scores, strange_scores = by_folds
            weights, bias = confidence.fit_weights(known[right], strange)
    threshold = (
        confidence.threshold_that_keeps(scores[right], keep)
        if accuracy is None
        else confidence.threshold_for_accuracy(scores, right, accuracy)
    )
    quantiles = confidence.fit_quantiles(confidence.above_truth(softmax(logits, temperature), images.truths))
    if threshold is None or not quantiles:
        aim = f"--keep {keep:g}" if accuracy is None else f"--accuracy {accuracy:g}"
        raise UsageError(f"{aim}: no threshold holds for these {len(logits)} images; give more, or another share")
    confident = scores >= threshold
    return Confidence(
        fitted_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        images=len(logits),
        foreign_images=len(foreign),
        precision=precision,
        threshold=threshold - bias,
        weights=None if weights is None else weights.tolist(),
        accuracy=float(right[confident].mean()),
        answered=float(confident.mean()),
        kept=float(confident[right].mean()),
        refused=float((strange_scores < threshold).mean()) if len(foreign) else None,
        quantiles=quantiles,
    )


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


def describe(found: Confidence) -> str:
    foreign = "" if found.refused is None else f", {found.refused:.2%} of {found.foreign_images} foreign ones refused"
    return (
        f"confidence, fitted on {found.images} images: {found.answered:.2%} answered confidently, {found.accuracy:.2%} "
        f"of these right, {found.kept:.2%} of the right answers kept{foreign}; sets of labels for a coverage of up to "
        f"{max(found.quantiles):g}"
    )
