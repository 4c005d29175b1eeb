"""Photos -> a head, and its accuracy on photos that it was not fitted on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.explanation.head import Head
from models.scores.temperature import fit_temperature
from training.own.classifier import folds
from training.own.classifier.figures import Answers
from training.own.classifier.head import Fitted, Ids, cross_validate, is_uneven
from training.own.seen import Seen, check_enough


@dataclass(frozen=True)
class Outcome:
    """`folds` (N,) of the photos that were fitted on, -1 for the others; `judged`: what the accuracy is measured on;
    `held_out`: the fitted photos, each classified by a head that did not see it."""

    fitted: Fitted
    folds: Ids
    judged: Answers
    held_out: Answers
    balanced: bool

    @property
    def judging(self) -> dict[int, tuple[NDArray[np.bool_], Head]]:
        """Fold -> which of the judged photos (N,) its classifier answered, and that classifier; empty if the final one
        answered all."""
        if self.judged is not self.held_out:
            return {}
        parts = self.folds[self.judged.photos]
        return {fold: (parts == fold, head) for fold, head in self.fitted.heads.items()}


def fit_head(seen: Seen, seed: int) -> Outcome:
    """Raises DataError if there are too few photos."""
    check_enough(seen)
    chosen, labels, rows = seen.fitted, seen.labels, seen.features
    own, together = labels[chosen], np.unique(seen.groups[chosen], return_inverse=True)[1]
    parts = folds.assign(own, together, folds.count(own, together), seed)
    balanced = is_uneven(own)
    fitted = cross_validate(rows[chosen], own, parts, balanced=balanced)
    temperature = fit_temperature(fitted.logits, own.tolist()) or 1.0
    how = f"{int(parts.max()) + 1}-fold cross-validation, {len(own)} photos"
    held_out = Answers(np.flatnonzero(chosen), own, fitted.logits, temperature, how)
    everywhere = np.full(len(labels), -1, np.int64)
    everywhere[chosen] = parts
    judged = held_out
    if seen.judged_by:
        test = seen.judged
        how = f"{seen.judged_by} split, {int(test.sum())} photos"
        judged = Answers(np.flatnonzero(test), labels[test], fitted.head(rows[test]), temperature, how)
    return Outcome(fitted, everywhere, judged, held_out, balanced)
