"""Measure top-1, top-5 and speed of a bundle on a folder of labelled images."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ImageError
from service import logs
from service.cli.console import Console, UsageError
from service.errors import ServiceError
from service.settings import Settings, add_flags, load_settings

if TYPE_CHECKING:
    from service.classifier import Fate

FLAGS = ("model", "engine", "precision", "decode_threads", "engine_threads", "max_image_pixels")


@dataclass(frozen=True)
class Evaluation:
    """`top1` and `top5` are fractions of all `images`; the speed is that of the whole way, decoding included."""

    images: int
    top1: float
    top5: float
    images_per_second: float
    engine: str
    precision: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, type=Path, metavar="FOLDER", help="FOLDER/<class>/*.jpg")
    parser.add_argument("--batch-size", dest="max_batch_size", metavar="N", help="most images the engine gets at once")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object, last on stdout")
    add_flags(parser, FLAGS)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Every image counts, the last batch too; one that cannot be decoded counts as wrong and is named on stderr."""
    settings, _ = load_settings(vars(arguments), console.environ)
    logs.configure("console", console.err, logging.WARNING)
    evaluation = asyncio.run(_evaluate(settings, arguments.data, console))
    if arguments.json:
        print(json.dumps(asdict(evaluation)), file=console.out)
    else:
        print(describe(evaluation), file=console.out)
    return 0


def describe(evaluation: Evaluation) -> str:
    return (
        f"{evaluation.images} images: top-1 {evaluation.top1:.2%}, top-5 {evaluation.top5:.2%}, "
        f"{evaluation.images_per_second:.1f} images/s with {evaluation.engine} {evaluation.precision}"
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


async def _evaluate(settings: Settings, folder: Path, console: Console) -> Evaluation:
    """Raises ServiceError if the engine fails on an image: the figures would be wrong."""
    from service.cli.images import classify_files, open_classifier, progress_bar

    ranks: list[int | None] = []
    async with open_classifier(settings) as classifier:
        truths = find_classes(folder, classifier.bundle.labels)
        k = min(5, len(classifier.bundle.labels))
        started = time.perf_counter()
        with progress_bar(len(truths), console) as bar:
            async for path, fate in classify_files(classifier, list(truths), top_k=k, settings=settings):
                ranks.append(rank_of(truths[path], fate))
                if isinstance(fate, ImageError):
                    bar.write(f"{path}: counts as wrong: {fate.detail}", file=console.err)
                bar.update()
        seconds = time.perf_counter() - started
        return Evaluation(
            images=len(ranks),
            top1=sum(rank == 0 for rank in ranks) / len(ranks),
            top5=sum(rank is not None for rank in ranks) / len(ranks),
            images_per_second=len(ranks) / seconds,
            engine=classifier.engine.name,
            precision=classifier.engine.precision,
        )


def rank_of(truth: str, fate: Fate) -> int | None:
    """Place of the label `truth` among the best ones, 0 first; None if it is not there. Raises ServiceError."""
    if isinstance(fate, ServiceError):
        raise fate
    labels = [] if isinstance(fate, ImageError) else [prediction.label for prediction in fate.predictions]
    return labels.index(truth) if truth in labels else None
