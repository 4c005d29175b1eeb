"""Evaluates a folder in N parts, by N processes or pods, and merges their results.

1. the parts do not overlap and cover every image, and each has a similar share of every class;
2. merging requires every part exactly once, all with the same model, engine and kind of pixels, and names any mismatch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.manifest import Precision
from service.errors import UsageError
from service.evaluation.confusion import Confusion

T = TypeVar("T")
Count = Annotated[int, Field(ge=0)]


class Shard(BaseModel):
    """Part `index` of `count`, counted from 0 like the pods of a Kubernetes Job."""

    model_config = ConfigDict(frozen=True)

    index: Count
    count: Annotated[int, Field(gt=0)]

    @model_validator(mode="after")
    def _inside(self) -> Shard:
        if self.index >= self.count:
            raise ValueError("the index must be in 0..N-1")
        return self

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/8` -> the third of eight. Raises UsageError."""
        index, _, count = text.partition("/")
        try:
            return cls.model_validate({"index": index, "count": count})
        except ValidationError as error:
            raise UsageError(
                f"--shard {text}: expected I/N with I in 0..N-1, such as 0/4 to 3/4 for four parts"
            ) from error

    def of(self, everything: Iterable[T]) -> list[T]:
        """Every `count`-th item."""
        return list(islice(everything, self.index, None, self.count))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class Part(BaseModel):
    """The result of one shard. `counts` holds (true label, answer, images); the answer is None if there was none."""

    model_config = ConfigDict(extra="ignore", frozen=True)  # the file also contains figures derived from these

    shard: Shard
    model: str
    engine: str
    precision: Precision
    pixels: str
    images: Count
    right_in_5: Count
    images_per_second: float
    labels: list[str]
    counts: list[tuple[str, str | None, Count]]

    @property
    def confusion(self) -> Confusion:
        return Confusion(self.labels, Counter({(truth, answer): times for truth, answer, times in self.counts}))

    @property
    def top1(self) -> float:
        right = sum(times for truth, answer, times in self.counts if truth == answer)
        return right / self.images if self.images else 0.0

    @property
    def top5(self) -> float:
        return self.right_in_5 / self.images if self.images else 0.0


def read(files: Sequence[Path]) -> Part:
    """Outputs of `repvgg evaluate --shard I/N --json`, with the part in the last line -> the merged result.

    Raises UsageError that names the unusable file or the mismatch.
    """
    parts = []
    for file in files:
        try:
            parts.append(Part.model_validate(json.loads(file.read_text(encoding="utf-8").splitlines()[-1])))
        except OSError as error:
            raise UsageError(f"--merge {file} cannot be read: {error.strerror}") from error
        except (ValueError, IndexError) as error:
            raise UsageError(f"--merge {file} is not the output of repvgg evaluate --shard I/N --json") from error
    return merge(parts)


def merge(parts: Sequence[Part]) -> Part:
    """Speeds are summed, since parts run in parallel. Raises UsageError."""
    for name in ("model", "engine", "precision", "pixels", "labels"):
        if len(values := dict.fromkeys(str(getattr(part, name)) for part in parts)) > 1:
            raise UsageError(f"--merge: the parts differ in {name}: {' and '.join(values)}")
    given = Counter(str(part.shard) for part in parts)
    expected = {f"{index}/{parts[0].shard.count}" for index in range(parts[0].shard.count)}
    for what, wrong in (("missing", expected - given.keys()), ("surplus", given - Counter(expected))):
        if wrong:
            raise UsageError(f"--merge: {what}: shard {', '.join(sorted(wrong))}")
    counts = sum((part.confusion.counts for part in parts), Counter[tuple[str, str | None]]())
    return parts[0].model_copy(
        update={
            "shard": Shard(index=0, count=1),
            "images": sum(part.images for part in parts),
            "right_in_5": sum(part.right_in_5 for part in parts),
            "images_per_second": sum(part.images_per_second for part in parts),
            "counts": [(truth, answer, times) for (truth, answer), times in counts.items()],
        }
    )
