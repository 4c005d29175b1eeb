"""What the server said of each image."""

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
    """Why this image has no predictions; `code` is stable and meant for programs, `detail` for people."""

    code: str
    detail: str


@dataclass(frozen=True)
class Model:
    """What answered: while a new version is rolled out there are two."""

    name: str
    version: str
    engine: str
    precision: str


@dataclass(frozen=True)
class Result:
    """One image's fate: either `predictions` by falling score, or its own `error`. `name`: its path, if it has one;
    `model`: None where no image of the request could be classified."""

    name: str | None
    predictions: tuple[Prediction, ...]
    error: ImageFault | None
    request_id: str | None
    model: Model | None = None

    @classmethod
    def of(cls, name: str | None, entry: Mapping[str, Any], answer: Mapping[str, Any]) -> Result:
        """`entry`: an item of the `results` of the `answer`."""
        predictions = tuple(Prediction(**prediction) for prediction in entry.get("predictions", ()))
        error = ImageFault(**entry["error"]) if "error" in entry else None
        model = Model(*(answer["model"][key] for key in ("name", "version", "engine", "precision")))
        return cls(name, predictions, error, answer["request_id"], model)
