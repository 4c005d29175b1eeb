"""The server's answer for each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """`score`: softmax probability over all classes, 0..1."""

    label: str
    class_id: int
    score: float


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
    `confident` is None if the model has no threshold; `label_set`, best first, if no `coverage` was asked for.
    """

    name: str | None
    predictions: tuple[Prediction, ...]
    error: ImageFault | None
    request_id: str | None
    model: Model | None = None
    confident: bool | None = None
    label_set: tuple[str, ...] | None = None

    @classmethod
    def of(cls, name: str | None, entry: Mapping[str, Any], answer: Mapping[str, Any]) -> Result:
        """`entry` is an item of `results` in the `answer`."""
        predictions = tuple(Prediction(**prediction) for prediction in entry.get("predictions", ()))
        error = ImageFault(**entry["error"]) if "error" in entry else None
        model = Model(*(answer["model"][key] for key in ("name", "version", "engine", "precision")))
        label_set = tuple(entry["set"]["labels"]) if "set" in entry else None
        return cls(name, predictions, error, answer["request_id"], model, entry.get("confident"), label_set)
