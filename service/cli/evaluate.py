"""Measure the accuracy and speed of a model bundle on a folder of labelled images."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from models import charts
from models.errors import BundleError
from service.cli.outputs import check_chart
from service.errors import UsageError
from service.observe import logs
from service.runtime.console import Console
from service.settings import ENGINE_FLAGS, add_flags, load_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from models.manifest import Confidence
    from service.evaluation.calibration import Calibration, Scores
    from service.evaluation.shards import Part

# The batch size has a flag of its own below.
FLAGS = (
    "model",
    "verify_key",
    *(name for name in ENGINE_FLAGS if name != "max_batch_size"),
    "pixels",
    "decode_threads",
    "max_image_pixels",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--data", type=Path, metavar="FOLDER", help="images in one folder per class: FOLDER/<class>/*.jpg"
    )
    source.add_argument(
        "--merge", type=Path, nargs="+", metavar="FILE", help="combine the outputs of --shard --json into one result"
    )
    parser.add_argument("--shard", metavar="I/N", help="evaluate only part I of N, counted from 0")
    parser.add_argument("--batch-size", dest="max_batch_size", metavar="N", help="largest batch given to the engine")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object, last on stdout")
    parser.add_argument(
        "--per-class", action="store_true", help="add the accuracy of each class and what it is confused with"
    )
    parser.add_argument("--confusion-matrix", type=Path, metavar="FILE.png", help="draw the confusion matrix")
    parser.add_argument(
        "--calibration", action="store_true", help="measure how well scores match accuracy, and fit a temperature"
    )
    parser.add_argument("--reliability-diagram", type=Path, metavar="FILE.png", help="draw accuracy against score")
    parser.add_argument(
        "--write-temperature",
        type=Path,
        metavar="NAME/VERSION",
        help="write the bundle with the fitted temperature to this new folder",
    )
    fitting = parser.add_argument_group("fitting when answers are confident", "on images that were not trained on")
    fitting.add_argument(
        "--fit-confidence",
        type=Path,
        metavar="NAME/VERSION",
        help="write the bundle with a temperature, a threshold and quantiles for sets of labels to this new folder",
    )
    fitting.add_argument("--foreign", type=Path, metavar="FOLDER", help="images of none of the bundle's classes")
    aim = fitting.add_mutually_exclusive_group()
    aim.add_argument(
        "--accuracy", type=float, metavar="SHARE", help="share of the confident answers that must be right"
    )
    aim.add_argument(
        "--kept", type=float, metavar="SHARE", help="share of the right answers that must be confident (default 0.95)"
    )
    add_flags(parser, FLAGS)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Every image counts; one that cannot be decoded counts as wrong and is named on stderr."""
    from service.classify.files import find_images
    from service.evaluation import shards
    from service.evaluation.evaluate import evaluate

    _check(arguments)
    if arguments.merge:
        _report(shards.read(arguments.merge), None, arguments, console)
        return 0
    settings, _ = load_settings(vars(arguments), console.environ)
    logs.configure("console", console.err, logging.WARNING)
    shard = shards.Shard.parse(arguments.shard or "0/1")
    foreign = find_images([arguments.foreign]) if arguments.foreign else []
    work = evaluate(
        settings,
        arguments.data,
        shard,
        calibrates=_calibrates(arguments),
        stream=console.err,
        foreign=foreign,
    )
    result, scores = asyncio.run(work)
    calibration = scores.calibration() if scores else None
    fitted = (
        _fit(scores, calibration, result, arguments) if scores and calibration and arguments.fit_confidence else None
    )
    _report(result, calibration, arguments, console, fitted)
    if scores and calibration and arguments.reliability_diagram:
        from service.evaluation import reliability

        _save(reliability.draw(scores, calibration), "--reliability-diagram", arguments.reliability_diagram)
    if calibration and (folder := arguments.write_temperature or arguments.fit_confidence):
        _write(settings.model, folder, calibration, fitted, console)
    return 0


def _calibrates(arguments: argparse.Namespace) -> bool:
    new = arguments.write_temperature or arguments.fit_confidence
    return bool(arguments.calibration or arguments.reliability_diagram or new)


def _check(arguments: argparse.Namespace) -> None:
    """Reject impossible combinations before the evaluation begins. Raises UsageError."""
    for flag in ("--confusion-matrix", "--reliability-diagram"):
        check_chart(flag, getattr(arguments, flag.strip("-").replace("-", "_")), charts.SUFFIXES)
    if arguments.merge and arguments.shard:
        raise UsageError("--merge and --shard exclude each other")
    if _calibrates(arguments) and (arguments.merge or arguments.shard):
        raise UsageError("calibration needs the scores of all images at once: leave out --shard and --merge")
    if arguments.write_temperature and arguments.fit_confidence:
        raise UsageError("--fit-confidence also writes the temperature: leave out --write-temperature")
    for flag in ("--write-temperature", "--fit-confidence"):
        if folder := getattr(arguments, flag.strip("-").replace("-", "_")):
            _check_new_bundle(flag, folder)
    given = [name for name in ("foreign", "accuracy", "kept") if getattr(arguments, name) is not None]
    if given and not arguments.fit_confidence:
        raise UsageError(f"--{given[0]} needs --fit-confidence NAME/VERSION")
    for name in ("accuracy", "kept"):
        if (share := getattr(arguments, name)) is not None and not 0 < share < 1:
            raise UsageError(f"--{name} {share:g} is not between 0 and 1")


def _check_new_bundle(flag: str, folder: Path) -> None:
    from models.store import name_and_version

    if folder.exists():
        raise UsageError(f"{flag} {folder} exists; give a new version")
    try:
        name_and_version(folder)
    except BundleError as error:
        raise UsageError(f"{flag} {error}") from error


def _write(model: str, folder: Path, calibration: Calibration, fitted: Confidence | None, console: Console) -> None:
    """A confidence that was fitted at another temperature does not hold at this one, so none replaces it."""
    from models import signing
    from models.store import open_bundle
    from models.versions import write_version

    if calibration.fitted_temperature is None:
        raise UsageError(f"--write-temperature: nothing is written: {calibration}")
    bundle = open_bundle(model)
    write_version(bundle, folder, temperature=calibration.fitted_temperature, confidence=fitted)
    if signing.read(bundle.folder):
        print(f"{folder} is not signed, because its manifest is new; {bundle.folder} was signed", file=console.err)


def _fit(scores: Scores, calibration: Calibration, result: Part, arguments: argparse.Namespace) -> Confidence:
    from service.evaluation import confidence

    if calibration.fitted_temperature is None:
        raise UsageError(f"--fit-confidence: nothing is written: {calibration}")
    keep = confidence.KEEP if arguments.kept is None else arguments.kept
    temperature = calibration.fitted_temperature
    return confidence.fit(scores, temperature, result.precision, accuracy=arguments.accuracy, keep=keep)


def _report(
    result: Part,
    calibration: Calibration | None,
    arguments: argparse.Namespace,
    console: Console,
    fitted: Confidence | None = None,
) -> None:
    from service.evaluation import confusion
    from service.evaluation.evaluate import Evaluation, describe

    evaluation = Evaluation.of(result)
    if arguments.confusion_matrix:
        picture = confusion.draw(result.confusion, describe(evaluation))
        _save(picture, "--confusion-matrix", arguments.confusion_matrix)
    if arguments.json:
        facts = asdict(evaluation)
        if arguments.per_class:
            facts["classes"] = [asdict(figures) for figures in result.confusion.classes()]
        if arguments.shard:
            facts |= result.model_dump(mode="json")
        if calibration:
            facts["calibration"] = asdict(calibration)
        if fitted:
            facts["confidence"] = fitted.model_dump(mode="json")
        print(json.dumps(facts), file=console.out)
    else:
        tables = [confusion.table(result.confusion)] if arguments.per_class else []
        more = [str(calibration)] if calibration else []
        more += [f"confidence, {fitted}"] if fitted else []
        print(*tables, describe(evaluation), *more, sep="\n", file=console.out)


def _save(figure: Figure, flag: str, path: Path) -> None:
    try:
        path.write_bytes(charts.encode(figure, path.suffix))
    except OSError as error:
        raise UsageError(f"{flag} {path} cannot be written: {error.strerror}") from error
