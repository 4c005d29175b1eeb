"""Top-1, top-5 and speed of a bundle on a folder of labelled images, by the same way as an image over HTTP.

Every image counts, the last batch too; an image that cannot be decoded counts as wrong and is named.
"""

from __future__ import annotations

import difflib
import time
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TextIO

from models.errors import ImageError
from models.preprocess import images_in
from service.classify.classifier import Classified, Outcome
from service.classify.files import classify_files, open_classifier, progress_bar
from service.errors import ServiceError, UsageError
from service.evaluation.calibration import Scores
from service.evaluation.shards import Part, Shard
from service.observe.logs import visible
from service.settings import Settings


@dataclass(frozen=True)
class Evaluation:
    """`top1` and `top5` are fractions of all `images`; the speed is that of the whole way, decoding included."""

    images: int
    top1: float
    top5: float
    images_per_second: float
    engine: str
    precision: str
    pixels: str

    @classmethod
    def of(cls, result: Part) -> Evaluation:
        return cls(**{field.name: getattr(result, field.name) for field in fields(cls)})


def describe(evaluation: Evaluation) -> str:
    return (
        f"{evaluation.images} images: top-1 {evaluation.top1:.2%}, top-5 {evaluation.top5:.2%}, "
        f"{evaluation.images_per_second:.1f} images/s with {evaluation.engine} {evaluation.precision}"
        f"{', fast pixels' if evaluation.pixels == 'fast' else ''}"
    )


def find_classes(folder: Path, labels: Sequence[str]) -> dict[Path, str]:
    """Image -> the label that its folder names. Raises UsageError."""
    if not folder.is_dir():
        raise UsageError(f"--data {folder} is no folder")
    in_nfc = {unicodedata.normalize("NFC", label): label for label in labels}  # macOS may decompose a folder's name
    images: dict[Path, str] = {}
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        name = class_folder.name
        label = in_nfc.get(unicodedata.normalize("NFC", name))
        if label is None:
            nearest = difflib.get_close_matches(name, labels, n=1, cutoff=0.0)[0]
            raise UsageError(f"{class_folder} is none of the bundle's {len(labels)} classes; the nearest is {nearest}")
        images |= dict.fromkeys(sorted(images_in(class_folder)), label)
    if not images:
        raise UsageError(f"--data {folder} holds no images: they belong into one folder a class, FOLDER/<class>/*.jpg")
    return images


async def evaluate(
    settings: Settings, folder: Path, shard: Shard, *, calibrates: bool, stream: TextIO
) -> tuple[Part, Scores | None]:
    """With the scores of all classes if it `calibrates`; an image that cannot be decoded has none. `stream` gets the
    progress bar and the names of such images.

    Raises ServiceError if the engine fails on an image: the figures would be wrong.
    """
    right_in_5, counts = 0, Counter[tuple[str, str | None]]()
    async with open_classifier(settings, measuring=True) as classifier:
        labels = classifier.bundle.labels
        truths = find_classes(folder, labels)
        mine = shard.of(truths)
        scores = Scores(len(labels), classifier.bundle.manifest.temperature) if calibrates else None
        most = len(labels) if calibrates else min(5, len(labels))
        started = time.perf_counter()
        with progress_bar(len(mine), stream) as bar:
            async for path, fate in classify_files(classifier, mine, top_k=most, settings=settings):
                answers = answers_of(fate)
                right_in_5 += truths[path] in answers[:5]
                if scores and isinstance(fate, Classified):
                    scores.add(truths[path], fate.predictions)
                counts[truths[path], answers[0] if answers else None] += 1
                if isinstance(fate, ImageError):
                    bar.write(f"{visible(str(path))}: counts as wrong: {fate.detail}", file=stream)
                bar.update()
        seconds = time.perf_counter() - started
    manifest = classifier.bundle.manifest
    part = Part(
        shard=shard,
        model=f"{manifest.name}/{manifest.version}",
        engine=classifier.engine.name,
        precision=classifier.engine.precision,
        pixels=settings.pixels,
        images=len(mine),
        right_in_5=right_in_5,
        images_per_second=len(mine) / seconds,
        labels=list(labels),
        counts=[(truth, answer, times) for (truth, answer), times in counts.items()],
    )
    return part, scores


def answers_of(fate: Outcome) -> list[str]:
    """The best labels, the best first; none for an image that cannot be decoded. Raises ServiceError."""
    if isinstance(fate, ServiceError):
        raise fate
    return [] if isinstance(fate, ImageError) else [prediction.label for prediction in fate.predictions]
