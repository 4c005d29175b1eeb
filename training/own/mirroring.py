"""May photos be mirrored in training? Not where left and right make a difference, as in hands, letters or signs.

1. it is measured, not guessed: the classifiers of cross-validation answer their held-out photos mirrored as well;
2. photos are mirrored unless that costs clearly more right answers than chance would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.manifest import Preprocess
from models.preprocess import at_size
from training.own.backbone import Backbone, Floats
from training.own.fitting import Outcome
from training.own.photos.looking import look
from training.own.seen import Seen
from training.own.sizes import sample

ALLOWED = 0.05  # of the answers, that may be wrong of mirrored photos only: the network is no perfect judge of symmetry


@dataclass(frozen=True)
class Mirroring:
    """Shares of right answers, 0..1, to photos as they are and mirrored; `harms` if the difference is no accident."""

    as_is: float
    mirrored: float
    harms: bool

    def __str__(self) -> str:
        words = f"{self.as_is:.1%} of the photos are known as they are, {self.mirrored:.1%} mirrored"
        return f"left and right make a difference ({words}): training does not mirror" if self.harms else words


def measure(seen: Seen, outcome: Outcome, backbone: Backbone, spec: Preprocess, seed: int) -> Mirroring:
    """By the photos that are fitted on, or some hundreds of them."""
    held_out = outcome.held_out
    chosen = sample([seen.classes[label] for label in held_out.labels], seed)
    rows = _mirrored_features(seen, held_out.photos[chosen].tolist(), backbone, spec)
    parts, labels = outcome.folds[held_out.photos[chosen]], held_out.labels[chosen]
    logits = np.empty((len(rows), len(seen.classes)), np.float32)
    for fold, head in outcome.fitted.heads.items():
        logits[parts == fold] = head(rows[parts == fold])
    as_is, mirrored = held_out.given[chosen] == labels, logits.argmax(axis=1) == labels
    lost = as_is.astype(float) - mirrored
    harms = lost.mean() > max(ALLOWED, 2 * lost.std() / np.sqrt(len(lost)))
    return Mirroring(float(as_is.mean()), float(mirrored.mean()), bool(harms))


def _mirrored_features(seen: Seen, photos: list[int], backbone: Backbone, spec: Preprocess) -> Floats:
    def compute(tensors: Floats) -> Floats:
        return backbone.compute(np.ascontiguousarray(tensors[..., ::-1]))

    looks = look([seen.photos[index].path for index in photos], [at_size(spec, seen.size)], compute, "mirror")
    return np.stack([one.features[seen.size] for one in looks])
