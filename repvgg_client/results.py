"""The server's answer for each image."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cam:
    """`grid`, rows from the top: what each part of the image adds to the `logit`, which is their sum plus `bias`.
    `box`: left, top, right and bottom of what the grid covers, in pixels of the upright photo."""

    grid: Sequence[Sequence[float]]
    bias: float
    logit: float
    box: Sequence[float]


@dataclass(frozen=True)
class Prediction:
    """`score`: softmax probability over all classes, or over those of `labels`, 0..1. `cam`: with `explain`."""

    label: str
    class_id: int
    score: float
    cam: Cam | None = None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Prediction:
        cam = {"cam": Cam(**entry["cam"])} if "cam" in entry else {}
        return cls(**{**entry, **cam})


@dataclass(frozen=True)
class ImageFault:
    """Why this image has no predictions; `code` is stable and meant for programs, `detail` is for people."""

    code: str
    detail: str


@dataclass(frozen=True)
class Model:
    """The model that answered; during a rollout there are two versions."""

    name: str
    version: str
    engine: str
    precision: str


@dataclass(frozen=True)
class Result:
    """The outcome for one image: either `predictions` in descending order of score, or an `error`.

    `name` is the path of the image, if it has one. `model` is None if no image of the request could be classified.
    `embedding`, if asked for, is an array of float32, which `numpy.asarray` reads in place.
    `confident` is None if the model has no threshold; `label_set`, best first, if no `coverage` was asked for.
    `request_id` and `index` name the image in feedback; `index` is None if no image of the request could be classified.
    """

    name: str | None
    predictions: tuple[Prediction, ...]
    error: ImageFault | None
    request_id: str | None
    model: Model | None = None
    embedding: array[float] | None = None
    confident: bool | None = None
    label_set: tuple[str, ...] | None = None
    index: int | None = None

    @classmethod
    def of(cls, name: str | None, entry: Mapping[str, Any], answer: Mapping[str, Any]) -> Result:
        """`entry` is an item of `results` in the `answer`."""
        predictions = tuple(map(Prediction.of, entry.get("predictions", ())))
        error = ImageFault(**entry["error"]) if "error" in entry else None
        model = Model(*(answer["model"][key] for key in ("name", "version", "engine", "precision")))
        embedding = _floats(entry["embedding"]["b64"]) if "embedding" in entry else None
        label_set = tuple(entry["set"]["labels"]) if "set" in entry else None
        confident, index = entry.get("confident"), entry.get("index")
        return cls(name, predictions, error, answer["request_id"], model, embedding, confident, label_set, index)


@dataclass(frozen=True)
class Judgement:
    """What feedback made of an answer. `result` is `right`, `wrong` or `foreign`; `counted` is false if the same
    feedback came before. `in_set` is None if no `coverage` was asked for, `confident` if the model has no threshold."""

    result: str
    predicted: str
    counted: bool
    confident: bool | None = None
    in_set: bool | None = None


def _floats(b64: str) -> array[float]:
    """Little-endian float32 in base64."""
    values = array("f", base64.b64decode(b64))
    if sys.byteorder == "big":
        values.byteswap()
    return values
