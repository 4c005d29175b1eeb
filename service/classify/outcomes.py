"""The outcome of an image, and what a caller may request besides the best labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import ImageError
from models.explanation.head import Cam, Head, pooled
from models.manifest import Manifest
from models.preprocess import Box
from models.scores.confidence import confidence_of, prediction_set, quantile_for
from models.scores.topk import Prediction, scores_of, top_k
from models.store import Bundle
from service.classify.deduplication import Source
from service.errors import ServiceError

# Encoded, or preprocessed already: float32 (3, S, S) of finite values.
Image = bytes | NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """`cam`: an explanation of each prediction; `embedding`: the pooled features, of length 1 if `normalize` is set.
    `weights` float64 (K,), not all 0: what the probability of each class is multiplied by before they are made to add
    up to 1; classes of weight 0 are left out. `min_score`: of a prediction. `coverage`: a set of labels that contains
    the true one with this probability; the bundle has a quantile for it. `logits`: those of the network."""

    cam: bool = False
    embedding: bool = False
    normalize: bool = False
    weights: NDArray[np.float64] | None = None
    min_score: float = 0.0
    coverage: float | None = None
    logits: bool = False

    @property
    def features(self) -> bool:
        """Is the feature map needed?"""
        return self.cam or self.embedding


LABELS_ONLY = Asked()


@dataclass(frozen=True)
class Timings:
    """Seconds that one image spent in each stage (decode includes the wait for a thread), and its batch size."""

    decode_s: float
    queue_s: float
    infer_s: float
    batch_size: int


@dataclass(frozen=True)
class Computed:
    """What callers of equal images share. `signals`: the drift signals of the input; `logits` float32 (K,); `features`
    (C, h, w) for callers that requested them; `seen`: the part of the image that the network saw."""

    image_format: str
    signals: dict[str, float]
    logits: NDArray[np.float32]
    timings: Timings
    seen: Box
    features: NDArray[np.float32] | None


class LabelSet(NamedTuple):
    """`labels`, best first, contain the true one with a probability of at least `coverage`."""

    coverage: float
    labels: list[str]


@dataclass(frozen=True)
class Classified:
    """`predictions`: the k best by falling score. `timings` are those of the computation, whichever caller ran it.
    `cams`, one for each prediction, and `embedding`, float32 (C,), of length 1 if `normalized`: if they were asked for,
    and so `label_set` and `logits` (K,). `best`: the first of them, also where `min_score` leaves it out. `confident`,
    of that label: None if the bundle has no threshold.
    """

    predictions: list[Prediction]
    timings: Timings
    source: Source
    best: Prediction
    cams: list[Cam] | None = None
    embedding: NDArray[np.float32] | None = None
    normalized: bool = False
    confident: bool | None = None
    label_set: LabelSet | None = None
    logits: NDArray[np.float32] | None = None


# The outcome of an image. Errors are values here: an error raised to many callers would grow its traceback with each.
Outcome = Classified | ImageError | ServiceError


def classified(
    result: Computed,
    source: Source,
    scores: NDArray[np.float64],
    certain: bool | None,
    bundle: Bundle,
    k: int,
    asked: Asked,
    head: Head | None,
) -> Classified:
    """What one caller gets from a computation; `scores` (K,) are those of all classes, as the network gives them, and
    `certain` says whether it is certain of its best label."""
    if asked.weights is not None:
        scores = scores_of(result.logits, bundle.manifest, asked.weights)
    best = top_k(scores, bundle.labels, k, asked.weights, bundle.manifest.labels)
    outcome = Classified(
        [prediction for prediction in best if prediction.score >= asked.min_score],
        result.timings,
        source,
        best[0],
        # The threshold is for the network's own best label, not for one that became the best through weights.
        confident=None if certain is None else certain and best[0].class_id == int(result.logits.argmax()),
        label_set=_label_set(scores, bundle, asked.coverage),
        logits=result.logits if asked.logits else None,
    )
    if result.features is None or head is None:
        return outcome
    explain = partial(head.explain, result.features, result.logits, box=result.seen)
    return replace(
        outcome,
        cams=[explain(class_id=prediction.class_id) for prediction in outcome.predictions] if asked.cam else None,
        embedding=pooled(result.features, normalize=asked.normalize) if asked.embedding else None,
        normalized=asked.normalize,
    )


def judged_by_features(manifest: Manifest) -> bool:
    """Are features needed to say whether an answer is confident?"""
    return manifest.confidence is not None and manifest.confidence.embedding_weights is not None


def is_certain(result: Computed, certainty: float, manifest: Manifest) -> bool | None:
    """Does the network's certainty of its best label reach the threshold? None if there is none, or without the
    features that it needs. `certainty`: of the scores, as in models.scores.confidence, which has been computed for the
    metrics."""
    fitted, embedding = manifest.confidence, None
    if fitted is None:
        return None
    if fitted.weights is None:
        return certainty >= fitted.threshold
    if judged_by_features(manifest):
        if result.features is None:
            return None
        embedding = pooled(result.features, normalize=False)
    confidence = confidence_of(result.logits, manifest.temperature, fitted.all_weights, embedding)
    return float(confidence) >= fitted.threshold


def _label_set(scores: NDArray[np.float64], bundle: Bundle, coverage: float | None) -> LabelSet | None:
    """Raises ValueError for a coverage that the bundle has no quantile for."""
    if coverage is None:
        return None
    confidence = bundle.manifest.confidence
    quantile = quantile_for(confidence.quantiles, coverage) if confidence else None
    if quantile is None:
        raise ValueError(f"there is no quantile for a coverage of {coverage}")
    labels = dict.fromkeys(bundle.labels[class_id] for class_id in prediction_set(scores, quantile))
    return LabelSet(coverage, list(labels))
