"""Measure top-1, top-5 and speed of a bundle on a folder of labelled images."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ImageError
from service import logs
from service.cli.console import Console, UsageError
from service.errors import ServiceError
from service.settings import ENGINE_FLAGS, Settings, add_flags, load_settings

if TYPE_CHECKING:
    from PIL import Image

    from service.classifier import Fate
    from service.cli.shards import Part, Shard

# The batch size has its public name below.
FLAGS = (
    "model",
    *(name for name in ENGINE_FLAGS if name != "max_batch_size"),
    "pixels",
    "decode_threads",
    "max_image_pixels",
)


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="FOLDER", help="FOLDER/<class>/*.jpg")
    source.add_argument("--merge", type=Path, nargs="+", metavar="FILE", help="outputs of --shard --json to make one")
    parser.add_argument("--shard", metavar="I/N", help="only part I of N, counted from 0: many pods share a folder")
    parser.add_argument("--batch-size", dest="max_batch_size", metavar="N", help="most images the engine gets at once")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object, last on stdout")
    parser.add_argument("--per-class", action="store_true", help="figures of each class, and what it is taken for")
    parser.add_argument("--confusion-matrix", type=Path, metavar="FILE.png", help="draw what is taken for what")
    add_flags(parser, FLAGS)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Every image counts, the last batch too; one that cannot be decoded counts as wrong and is named on stderr."""
    from service.cli import shards

    if arguments.confusion_matrix and not arguments.confusion_matrix.parent.is_dir():
        raise UsageError(f"--confusion-matrix: there is no folder {arguments.confusion_matrix.parent}")
    if arguments.merge and arguments.shard:
        raise UsageError("--merge and --shard exclude each other")
    if arguments.merge:
        result: Part = shards.read(arguments.merge)
    else:
        settings, _ = load_settings(vars(arguments), console.environ)
        logs.configure("console", console.err, logging.WARNING)
        shard = shards.Shard.parse(arguments.shard or "0/1")
        result = asyncio.run(_evaluate(settings, arguments.data, shard, console))
    _report(result, arguments, console)
    return 0


def _report(result: Part, arguments: argparse.Namespace, console: Console) -> None:
    from service.cli.confusion import draw, table

    evaluation = Evaluation.of(result)
    if arguments.confusion_matrix:
        _save(draw(result.confusion, describe(evaluation)), arguments.confusion_matrix)
    if arguments.json:
        facts = asdict(evaluation)
        if arguments.per_class:
            facts["classes"] = [asdict(figures) for figures in result.confusion.classes()]
        if arguments.shard:
            facts |= result.model_dump(mode="json")
        print(json.dumps(facts), file=console.out)
    else:
        print(*[table(result.confusion)] * arguments.per_class, describe(evaluation), sep="\n", file=console.out)


def _save(picture: Image.Image, path: Path) -> None:
    try:
        picture.save(path)
    except (OSError, ValueError) as error:  # ValueError: a suffix that is no image format
        raise UsageError(f"--confusion-matrix {path} cannot be written: {error}") from error


def describe(evaluation: Evaluation) -> str:
    return (
        f"{evaluation.images} images: top-1 {evaluation.top1:.2%}, top-5 {evaluation.top5:.2%}, "
        f"{evaluation.images_per_second:.1f} images/s with {evaluation.engine} {evaluation.precision}"
        f"{', fast pixels' if evaluation.pixels == 'fast' else ''}"
    )


def find_classes(folder: Path, labels: Sequence[str]) -> dict[Path, str]:
    """Image -> the label that its folder names. Raises UsageError."""
    from models.preprocess import images_in

    if not folder.is_dir():
        raise UsageError(f"--data {folder} is no folder")
    images: dict[Path, str] = {}
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        name = class_folder.name
        if name not in labels:
            nearest = difflib.get_close_matches(name, labels, n=1, cutoff=0.0)[0]
            raise UsageError(f"{class_folder} is none of the bundle's {len(labels)} classes; the nearest is {nearest}")
        images |= dict.fromkeys(sorted(images_in(class_folder)), name)
    if not images:
        raise UsageError(f"--data {folder} holds no images: they belong into one folder a class, FOLDER/<class>/*.jpg")
    return images


async def _evaluate(settings: Settings, folder: Path, shard: Shard, console: Console) -> Part:
    """Raises ServiceError if the engine fails on an image: the figures would be wrong."""
    from service.cli.images import classify_files, open_classifier, progress_bar
    from service.cli.shards import Part

    right_in_5, counts = 0, Counter[tuple[str, str | None]]()
    async with open_classifier(settings, measuring=True) as classifier:
        labels = classifier.bundle.labels
        truths = find_classes(folder, labels)
        mine = shard.of(truths)
        started = time.perf_counter()
        with progress_bar(len(mine), console) as bar:
            async for path, fate in classify_files(classifier, mine, top_k=min(5, len(labels)), settings=settings):
                answers = answers_of(fate)
                right_in_5 += truths[path] in answers
                counts[truths[path], answers[0] if answers else None] += 1
                if isinstance(fate, ImageError):
                    bar.write(f"{path}: counts as wrong: {fate.detail}", file=console.err)
                bar.update()
        seconds = time.perf_counter() - started
    manifest = classifier.bundle.manifest
    return Part(
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


def answers_of(fate: Fate) -> list[str]:
    """The best labels, the best first; none for an image that cannot be decoded. Raises ServiceError."""
    if isinstance(fate, ServiceError):
        raise fate
    return [] if isinstance(fate, ImageError) else [prediction.label for prediction in fate.predictions]
