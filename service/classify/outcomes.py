"""What an image comes to, and what a caller may ask for beside the best labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.errors import ImageError
from models.explanation import Cam, Head, pooled
from models.preprocess import Box
from models.store import Bundle
from models.topk import Prediction, scores_of, top_k
from service.classify.deduplication import Source
from service.errors import ServiceError

# Encoded, or preprocessed already: float32 (3, S, S) of finite values.
Image = bytes | NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """`cam`: why, for each prediction; `embedding`: the pooled features, of length 1 if `normalize` is set. `weights`
    float64 (K,), not all 0: what the probability of each class is multiplied by before they are made to add up to 1;
    classes of weight 0 are left out."""

    cam: bool = False
    embedding: bool = False
    normalize: bool = False
    weights: NDArray[np.float64] | None = None

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
    (C, h, w) for those who asked for them; `seen`: the part of the image that the network saw."""

    image_format: str
    signals: dict[str, float]
    logits: NDArray[np.float32]
    timings: Timings
    seen: Box
    features: NDArray[np.float32] | None


@dataclass(frozen=True)
class Classified:
    """`predictions`: the k best by falling score. `timings` are those of the computation, whichever caller ran it.
    `cams`, one for each prediction, and `embedding`, float32 (C,), of length 1 if `normalized`: if they were asked for.
    """

    predictions: list[Prediction]
    timings: Timings
    source: Source
    cams: list[Cam] | None = None
    embedding: NDArray[np.float32] | None = None
    normalized: bool = False


# What an image comes to. Errors are values here: one that is raised to many callers grows its traceback with each.
Outcome = Classified | ImageError | ServiceError


def classified(
    result: Computed,
    source: Source,
    scores: NDArray[np.float64],
    bundle: Bundle,
    k: int,
    asked: Asked,
    head: Head | None,
) -> Classified:
    """What one caller gets of a computation; `scores` (K,) are those of all classes, as the network gives them."""
    if asked.weights is not None:
        scores = scores_of(result.logits, bundle.manifest, asked.weights)
    predictions = top_k(scores, bundle.labels, k, asked.weights, bundle.manifest.labels)
    if result.features is None or head is None:
        return Classified(predictions, result.timings, source)
    explain = partial(head.explain, result.features, result.logits, box=result.seen)
    return Classified(
        predictions,
        result.timings,
        source,
        [explain(class_id=prediction.class_id) for prediction in predictions] if asked.cam else None,
        pooled(result.features, normalize=asked.normalize) if asked.embedding else None,
        asked.normalize,
    )
