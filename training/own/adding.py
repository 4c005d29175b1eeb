"""New classes next to those of a bundle, which stay as they are, bit for bit.

1. the classifier's rows of known classes, everything before the classifier, and the temperature are not touched;
2. the new rows are fitted on photos of the new classes and on counter-examples of classes that the bundle knows; the
   penalty is chosen by cross-validation, as for a new classifier.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.explanation.head import Head
from models.scores.topk import softmax
from models.store import Bundle
from training.data.names import listed, normal_form
from training.errors import DataError
from training.own.backbone import Backbone, Floats
from training.own.classifier import folds
from training.own.classifier.figures import Answers
from training.own.classifier.head import PENALTIES, Ids, surprises
from training.own.seen import Seen, check_enough


def add(seen: Seen, bundle: Bundle, backbone: Backbone, seed: int) -> tuple[Seen, Head, Answers]:
    """-> the photos with all classes, the larger classifier, and its accuracy. Raises DataError."""
    labels = bundle.labels
    if bundle.manifest.labels.multi:
        raise DataError(f"{bundle.folder} is a multi-label bundle: --add is for bundles with one label per image")
    known = {normal_form(label) for label in labels}
    new = [name for name in seen.classes if name not in known]
    if not new or len(new) == len(seen.classes):
        what = "only classes that the bundle has" if not new else "none of the classes that the bundle has"
        raise DataError(
            f"{seen.source} has {what}: --add needs photos of new classes, and of some of {listed(labels, most=8)}, "
            "as counter-examples"
        )
    check_enough(seen)
    parts = folds.assign(seen.labels, seen.groups, folds.count(seen.labels, seen.groups), seed)
    seen = replace(seen, classes=(*map(normal_form, labels), *new))
    rows, ids, old = seen.features, seen.labels, backbone.classifier()
    logits = np.zeros((len(PENALTIES), len(ids), len(seen.classes)), np.float32)
    for place, penalty in enumerate(PENALTIES):
        for fold in np.unique(parts):
            out = parts == fold
            logits[place, out] = _fit(rows[~out], ids[~out], old, len(new), penalty)(rows[out])
    best = int(np.argmin([surprises(one, ids).mean() for one in logits]))
    how = f"{int(parts.max()) + 1}-fold cross-validation, {len(ids)} photos"
    answers = Answers(np.arange(len(ids)), ids, logits[best], bundle.manifest.temperature, how)
    return seen, _fit(rows, ids, old, len(new), float(PENALTIES[best])), answers


def _fit(rows: Floats, ids: Ids, old: Head, count: int, penalty: float) -> Head:
    """The likelihood of all classes, maximised over the rows of the `count` new ones alone."""
    mean, deviation = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    scale = 1.0 / np.where(deviation > 1e-6, deviation, 1.0)
    standard, fixed = (rows - mean) * scale, old(rows)
    truth = np.eye(len(old.bias) + count)[ids]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        table = flat.reshape(count, -1)
        scores = softmax(np.concatenate([fixed, standard @ table[:, :-1].T + table[:, -1]], axis=1))
        off = (scores - truth)[:, len(old.bias) :]
        surprise = -np.log(np.maximum((scores * truth).sum(axis=1), 1e-300)).sum()
        slope = np.concatenate([off.T @ standard + table[:, :-1] / penalty, off.sum(axis=0)[:, None]], axis=1)
        return float(surprise + (table[:, :-1] ** 2).sum() / (2 * penalty)), slope.ravel()

    table = minimize(loss, np.zeros(count * (rows.shape[1] + 1)), jac=True, method="L-BFGS-B").x.reshape(count, -1)
    weight = table[:, :-1] * scale
    bias = table[:, -1] - weight @ mean
    stacked = [np.concatenate(pair).astype(np.float32) for pair in ((old.weight, weight), (old.bias, bias))]
    return Head(stacked[0], stacked[1])
