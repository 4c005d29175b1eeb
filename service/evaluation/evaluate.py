"""Top-1, top-5 and speed of a bundle on a folder of labelled images, which take the same path as images over HTTP.

Every image counts, including the last, smaller batch; an image that cannot be decoded counts as wrong and is named.
"""

from __future__ import annotations

import difflib
import time
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TextIO

from models.errors import ImageError
from models.preprocess import images_in
from service.classify.classifier import Classifier
from service.classify.files import classify_files, open_classifier, progress_bar
from service.classify.outcomes import LABELS_ONLY, Asked, Classified, Outcome
from service.errors import ServiceError, UsageError
from service.evaluation.calibration import Scores
from service.evaluation.shards import Part, Shard
from service.observe.logs import visible
from service.settings import Settings


@dataclass(frozen=True)
class Evaluation:
    """`top1` and `top5` are fractions of all `images`; the speed includes decoding."""

    images: int
    top1: float
    top5: float
    images_per_second: float
    engine: str
    precision: str
    pixels: str

    @classmethod
    def of(cls, result: Part) -> Evaluation:
        return cls(**{each.name: getattr(result, each.name) for each in fields(cls)})


def describe(evaluation: Evaluation) -> str:
    return (
        f"{evaluation.images} images: top-1 {evaluation.top1:.2%}, top-5 {evaluation.top5:.2%}, "
        f"{evaluation.images_per_second:.1f} images/s with {evaluation.engine} {evaluation.precision}"
        f"{', fast pixels' if evaluation.pixels == 'fast' else ''}"
    )


def find_classes(folder: Path, labels: Sequence[str]) -> dict[Path, str]:
    """Image -> its label, which is the name of its folder. Raises UsageError."""
    if not folder.is_dir():
        raise UsageError(f"--data {folder} is not a folder")
    in_nfc = {unicodedata.normalize("NFC", label): label for label in labels}  # macOS may decompose a folder's name
    images: dict[Path, str] = {}
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        name = class_folder.name
        label = in_nfc.get(unicodedata.normalize("NFC", name))
        if label is None:
            nearest = difflib.get_close_matches(name, labels, n=1, cutoff=0.0)[0]
            raise UsageError(
                f"{class_folder} is not one of the bundle's {len(labels)} classes; did you mean {nearest}?"
            )
        images |= dict.fromkeys(sorted(images_in(class_folder)), label)
    if not images:
        raise UsageError(f"--data {folder} has no images: put them into one folder per class, FOLDER/<class>/*.jpg")
    return images


@dataclass
class _Tally:
    """What the images evaluated so far add up to. `scores` is None unless they are needed for calibration."""

    truths: Mapping[Path, str]
    scores: Scores | None
    right_in_5: int = 0
    counts: Counter[tuple[str, str | None]] = field(default_factory=Counter)

    def add(self, path: Path, outcome: Outcome) -> None:
        """Raises ServiceError."""
        truth, answers = self.truths[path], answers_of(outcome)
        self.right_in_5 += truth in answers[:5]
        self.counts[truth, answers[0] if answers else None] += 1
        if self.scores and isinstance(outcome, Classified) and outcome.logits is not None:
            self.scores.add(truth, outcome.logits, outcome.embedding)

    def add_foreign(self, outcome: Outcome) -> bool:
        """-> was it left out? Raises ServiceError."""
        answers_of(outcome)
        if self.scores and isinstance(outcome, Classified) and outcome.logits is not None:
            self.scores.add_foreign(outcome.logits, outcome.embedding)
        return isinstance(outcome, ImageError)


async def evaluate(
    settings: Settings,
    folder: Path,
    shard: Shard,
    *,
    calibrates: bool,
    stream: TextIO,
    foreign: Sequence[Path] = (),
) -> tuple[Part, Scores | None]:
    """Classify the images of `folder` that belong to `shard` -> its result, and with `calibrates` the logits of each
    image that can be decoded, and of each `foreign` one. The progress bar and the names of undecodable images go to
    `stream`.

    Raises ServiceError if the engine fails on an image, since the result would be wrong.
    """
    async with open_classifier(settings, measuring=True) as classifier:
        bundle = classifier.bundle
        truths = find_classes(folder, bundle.labels)
        images = shard.of(truths)
        tally = _Tally(truths, Scores(bundle.labels, bundle.manifest.temperature) if calibrates else None)
        classify = partial(
            classify_files,
            classifier,
            top_k=min(5, len(bundle.labels)),
            settings=settings,
            asked=_asked(classifier, calibrates=calibrates, foreign=bool(foreign)),
        )
        started = time.perf_counter()
        with progress_bar(len(images) + len(foreign), stream) as bar:
            async for path, outcome in classify(images):
                tally.add(path, outcome)
                if isinstance(outcome, ImageError):
                    bar.write(f"{visible(str(path))}: counts as wrong: {outcome.detail}", file=stream)
                bar.update()
            seconds = time.perf_counter() - started
            async for path, outcome in classify(foreign):
                if tally.add_foreign(outcome):
                    bar.write(f"{visible(str(path))}: left out: it cannot be decoded", file=stream)
                bar.update()
    return _part(shard, classifier, settings.pixels, tally, len(images) / seconds), tally.scores


def _asked(classifier: Classifier, *, calibrates: bool, foreign: bool) -> Asked:
    """Embeddings cost memory; only foreign images make use of them."""
    if not calibrates:
        return LABELS_ONLY
    return Asked(logits=True, embedding=foreign and classifier.head is not None)


def _part(shard: Shard, classifier: Classifier, pixels: str, tally: _Tally, images_per_second: float) -> Part:
    manifest, engine = classifier.bundle.manifest, classifier.engine
    return Part(
        shard=shard,
        model=f"{manifest.name}/{manifest.version}",
        engine=engine.name,
        precision=engine.precision,
        pixels=pixels,
        images=tally.counts.total(),
        right_in_5=tally.right_in_5,
        images_per_second=images_per_second,
        labels=list(classifier.bundle.labels),
        counts=[(truth, answer, times) for (truth, answer), times in tally.counts.items()],
    )


def answers_of(outcome: Outcome) -> list[str]:
    """The labels from best to worst; none for an image that cannot be decoded. Raises ServiceError."""
    if isinstance(outcome, ServiceError):
        raise outcome
    return [] if isinstance(outcome, ImageError) else [prediction.label for prediction in outcome.predictions]
