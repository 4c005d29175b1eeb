"""Measure top-1, top-5 and speed of a bundle on a folder of labelled images."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import BundleError
from service.errors import UsageError
from service.observe import logs
from service.runtime.console import Console
from service.settings import ENGINE_FLAGS, add_flags, load_settings

if TYPE_CHECKING:
    from PIL import Image

    from service.evaluation.calibration import Calibration
    from service.evaluation.shards import Part

# The batch size has its public name below.
FLAGS = (
    "model",
    *(name for name in ENGINE_FLAGS if name != "max_batch_size"),
    "pixels",
    "decode_threads",
    "max_image_pixels",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="FOLDER", help="FOLDER/<class>/*.jpg")
    source.add_argument("--merge", type=Path, nargs="+", metavar="FILE", help="outputs of --shard --json to make one")
    parser.add_argument("--shard", metavar="I/N", help="only part I of N, counted from 0: many pods share a folder")
    parser.add_argument("--batch-size", dest="max_batch_size", metavar="N", help="most images the engine gets at once")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object, last on stdout")
    parser.add_argument("--per-class", action="store_true", help="figures of each class, and what it is taken for")
    parser.add_argument("--confusion-matrix", type=Path, metavar="FILE.png", help="draw what is taken for what")
    parser.add_argument(
        "--calibration", action="store_true", help="do the scores mean what they say? fits a temperature"
    )
    parser.add_argument("--reliability-diagram", type=Path, metavar="FILE.png", help="draw accuracy against score")
    parser.add_argument(
        "--write-temperature", type=Path, metavar="NAME/VERSION", help="new folder for the bundle with that temperature"
    )
    add_flags(parser, FLAGS)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Every image counts, the last batch too; one that cannot be decoded counts as wrong and is named on stderr."""
    from service.evaluation import shards
    from service.evaluation.evaluate import evaluate

    _check(arguments)
    if arguments.merge:
        _report(shards.read(arguments.merge), None, arguments, console)
        return 0
    settings, _ = load_settings(vars(arguments), console.environ)
    logs.configure("console", console.err, logging.WARNING)
    shard = shards.Shard.parse(arguments.shard or "0/1")
    work = evaluate(settings, arguments.data, shard, calibrates=_calibrates(arguments), stream=console.err)
    result, scores = asyncio.run(work)
    calibration = scores.calibration() if scores else None
    _report(result, calibration, arguments, console)
    if scores and calibration and arguments.reliability_diagram:
        _save(scores.draw(calibration), "--reliability-diagram", arguments.reliability_diagram)
    if calibration and arguments.write_temperature:
        _write_temperature(calibration, settings.model, arguments.write_temperature)
    return 0


def _calibrates(arguments: argparse.Namespace) -> bool:
    return bool(arguments.calibration or arguments.reliability_diagram or arguments.write_temperature)


def _check(arguments: argparse.Namespace) -> None:
    """Before the work begins. Raises UsageError."""
    from models.store import name_and_version

    for flag in ("confusion_matrix", "reliability_diagram"):
        path = getattr(arguments, flag)
        if path and not path.parent.is_dir():
            raise UsageError(f"--{flag.replace('_', '-')}: there is no folder {path.parent}")
    if arguments.merge and arguments.shard:
        raise UsageError("--merge and --shard exclude each other")
    if _calibrates(arguments) and (arguments.merge or arguments.shard):
        raise UsageError("calibration needs the scores of all images at once: leave --shard and --merge out")
    if arguments.write_temperature:
        if arguments.write_temperature.exists():
            raise UsageError(f"--write-temperature {arguments.write_temperature} exists; give the next version")
        try:
            name_and_version(arguments.write_temperature)
        except BundleError as error:
            raise UsageError(f"--write-temperature {error}") from error


def _write_temperature(calibration: Calibration, model: str, folder: Path) -> None:
    from models.store import open_bundle
    from models.versions import write_version

    if calibration.fitted_temperature is None:
        raise UsageError(f"--write-temperature: nothing is written, as {calibration}")
    write_version(open_bundle(model), folder, temperature=calibration.fitted_temperature)


def _report(result: Part, calibration: Calibration | None, arguments: argparse.Namespace, console: Console) -> None:
    from service.evaluation.confusion import draw, table
    from service.evaluation.evaluate import Evaluation, describe

    evaluation = Evaluation.of(result)
    if arguments.confusion_matrix:
        _save(draw(result.confusion, describe(evaluation)), "--confusion-matrix", arguments.confusion_matrix)
    if arguments.json:
        facts = asdict(evaluation)
        if arguments.per_class:
            facts["classes"] = [asdict(figures) for figures in result.confusion.classes()]
        if arguments.shard:
            facts |= result.model_dump(mode="json")
        if calibration:
            facts["calibration"] = asdict(calibration)
        print(json.dumps(facts), file=console.out)
    else:
        print(*[table(result.confusion)] * arguments.per_class, describe(evaluation), sep="\n", file=console.out)
        if calibration:
            print(calibration, file=console.out)


def _save(picture: Image.Image, flag: str, path: Path) -> None:
    try:
        picture.save(path)
    except (OSError, ValueError) as error:  # ValueError: a suffix that is no image format
        raise UsageError(f"{flag} {path} cannot be written: {error}") from error
