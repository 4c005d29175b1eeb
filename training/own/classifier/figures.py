"""The quality of the answers: accuracy with its interval, confusions, figures of each class.

Source of the interval: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference"; it holds
for few photos, and at 0 and 100 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.scores.topk import softmax
from training.own.classifier.head import Ids

SMALL_CLASS = 20  # with fewer photos, the figures of a class say little
Z = 1.959964  # of the normal distribution, for 95 %


def wilson(right: int, total: int) -> tuple[float, float]:
    """-> the interval that holds the true share with 95 % certainty, both ends in 0..1."""
    if total == 0:
        return 0.0, 1.0
    share, weight = right / total, Z * Z / total
    middle = (share + weight / 2) / (1 + weight)
    half = Z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / total / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class OfClass:
    """`recall` of its own photos with its interval, `precision` of the answers that name it; `images` are its own."""

    label: str
    images: int
    recall: float
    interval: tuple[float, float]
    precision: float

    @property
    def f1(self) -> float:
        both = self.recall + self.precision
        return 2 * self.recall * self.precision / both if both else 0.0


@dataclass(frozen=True)
class Answers:
    """Logits (N, K) for photos that were not used for fitting, with the true class ids (N,); `photos` (N,) are indices
    into those seen, `how` says in words what was held out."""

    photos: Ids
    labels: Ids
    logits: NDArray[np.float32]
    temperature: float
    how: str

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        return softmax(self.logits, self.temperature)

    @cached_property
    def given(self) -> Ids:
        """(N,) the predicted class."""
        given: Ids = self.logits.argmax(axis=1).astype(np.int64)
        return given

    @property
    def right(self) -> int:
        return int((self.given == self.labels).sum())

    @property
    def mistakes(self) -> list[int]:
        """The rows of wrong answers, the most confident first."""
        order = np.argsort(-self.scores.max(axis=1), kind="stable")
        return [int(row) for row in order if self.given[row] != self.labels[row]]

    @property
    def accuracy(self) -> float:
        return self.right / len(self.labels)

    @property
    def top5(self) -> float:
        best = np.argsort(-self.logits, axis=1, kind="stable")[:, :5]
        return float((best == self.labels[:, None]).any(axis=1).mean())

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, len(self.labels))

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K): photos by true class and answer."""
        counts = np.zeros((self.logits.shape[1],) * 2, np.int64)
        np.add.at(counts, (self.labels, self.given), 1)
        return counts

    def classes(self, names: tuple[str, ...]) -> list[OfClass]:
        counts = self.confusion
        rows, columns, hits = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
        return [
            OfClass(
                name,
                int(rows[index]),
                float(hits[index] / rows[index]) if rows[index] else 0.0,
                wilson(int(hits[index]), int(rows[index])),
                float(hits[index] / columns[index]) if columns[index] else 0.0,
            )
            for index, name in enumerate(names)
        ]

    def macro_f1(self, names: tuple[str, ...]) -> float:
        """The mean over the classes that have photos."""
        return float(np.mean([one.f1 for one in self.classes(names) if one.images]))

    def confusions(self, names: tuple[str, ...], most: int) -> list[tuple[str, str, int]]:
        """The most frequent (true, predicted, photos), wrong ones only."""
        counts = self.confusion - np.diag(self.confusion.diagonal())
        order = np.argsort(-counts, axis=None, kind="stable")[:most]
        cells = [divmod(int(cell), len(names)) for cell in order]
        return [(names[row], names[column], int(counts[row, column])) for row, column in cells if counts[row, column]]
