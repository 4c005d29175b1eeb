"""Classify image files and print the best labels for each."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from service.api.schemas import Result
from service.errors import UsageError
from service.observe import logs
from service.observe.logs import is_utf8, visible
from service.runtime.console import Console
from service.settings import ENGINE_FLAGS, Settings, add_flags, load_settings

if TYPE_CHECKING:
    from service.classify.classifier import Classifier
    from service.classify.outcomes import Asked, Classified, Outcome

DEFAULT_TOP_K = 5
FLAGS = (
    "model",
    *ENGINE_FLAGS,
    "pixels",
    "decode_threads",
    "max_image_pixels",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--top-k", type=int, metavar="K", help=f"labels per image (default {DEFAULT_TOP_K})")
    parser.add_argument("--json", action="store_true", help="print one line of JSON per image instead of a table")
    parser.add_argument(
        "--labels", metavar="LABEL,...", help="restrict the answer to these labels; their scores add up to 1"
    )
    parser.add_argument(
        "--coverage",
        metavar="SHARE",
        help="add the smallest set of labels that contains the true one with this probability, such as 0.95",
    )
    parser.add_argument("--min-score", default="0", metavar="SCORE", help="leave out labels with a lower score")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="add to --json the contribution of each part of the image to each label's logit",
    )
    parser.add_argument(
        "--explain-dir",
        type=Path,
        metavar="DIR",
        help="write each photo there as PNG, with a heat map of the evidence for its label",
    )
    add_flags(parser, FLAGS)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """-> 1 if any image failed; the other images are classified anyway."""
    from service.classify.files import find_images

    settings, _ = load_settings(vars(arguments), console.environ)
    logs.configure("console", console.err, logging.WARNING)
    paths = find_images(arguments.paths)
    _check(arguments, paths)
    width = max(len(visible(str(path))) for path in paths)
    as_json = partial(json_line, ascii_only=not is_utf8(console.out))
    line = as_json if arguments.json else partial(table_line, width=width)
    failed = asyncio.run(_classify(paths, arguments, settings, line, console))
    return 1 if failed else 0


def _check(arguments: argparse.Namespace, paths: Sequence[Path]) -> None:
    """Raises UsageError for flags that cannot work together."""
    if arguments.explain and not arguments.json:
        raise UsageError("--explain adds to the lines of --json: give --json too, or --explain-dir DIR for pictures")
    if arguments.explain_dir and (pipe := next((path for path in paths if not path.is_file()), None)):
        raise UsageError(f"--explain-dir: {pipe} is not a regular file, and photos are read twice")


async def _classify(
    paths: Sequence[Path],
    arguments: argparse.Namespace,
    settings: Settings,
    line: Callable[[Path, Result], str],
    console: Console,
) -> int:
    """-> the number of images that failed."""
    from service.api.answers import result_of
    from service.classify.files import check_features, classify_files, open_classifier, progress_bar
    from service.classify.outcomes import Classified

    failed, numbers, pictures = 0, count(), arguments.explain_dir
    async with open_classifier(settings) as classifier:
        k = check_top_k(arguments.top_k, len(classifier.bundle.labels))
        asked = _asked(arguments, classifier)
        if asked.cam:
            check_features(classifier, "--explain")
        with progress_bar(len(paths), console.err) as bar:
            async for path, fate in classify_files(classifier, paths, top_k=k, settings=settings, asked=asked):
                if pictures and isinstance(fate, Classified):
                    await asyncio.to_thread(_draw, path, paths, fate, pictures, settings)
                result = result_of(next(numbers), None, fate if arguments.explain else _without_cams(fate))
                failed += result.error is not None
                bar.clear()
                print(line(path, result), file=console.out)
                bar.refresh()
                bar.update()
    return failed


def _asked(arguments: argparse.Namespace, classifier: Classifier) -> Asked:
    """As the query of /classify would be read. Raises UsageError."""
    from service.api.problems import RequestError
    from service.api.reading.asked import read_asked

    given = {name: getattr(arguments, name) for name in ("labels", "coverage", "min_score")}
    parameters = {name: value for name, value in given.items() if value is not None}
    try:
        asked = read_asked(parameters, classifier)
        return replace(asked, cam=bool(arguments.explain or arguments.explain_dir))
    except RequestError as error:
        raise UsageError(f"--{str(error).replace('min_score', 'min-score')}") from error


def _without_cams(fate: Outcome) -> Outcome:
    """They were requested only to be drawn."""
    from service.classify.outcomes import Classified

    return replace(fate, cams=None) if isinstance(fate, Classified) else fate


def _draw(path: Path, paths: Sequence[Path], fate: Classified, folder: Path, settings: Settings) -> None:
    """The photo with its best label's grid, at its place under `folder`: sub/cat.jpg becomes sub/cat.jpg.png."""
    from models.explanation import overlay
    from models.preprocess import read_file

    assert fate.cams is not None
    common = os.path.commonpath([one.absolute().parent for one in paths])
    target = folder / path.absolute().relative_to(common)
    try:
        picture = overlay.draw(read_file(path), fate.cams[0], settings.max_image_pixels)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_name(f"{target.name}.png").write_bytes(picture)
    except OSError as error:
        raise UsageError(f"--explain-dir {error.filename} cannot be written: {error.strerror}") from error


def check_top_k(top_k: int | None, classes: int) -> int:
    if top_k is None:
        return min(DEFAULT_TOP_K, classes)
    if not 1 <= top_k <= classes:
        raise UsageError(f"--top-k {top_k} is not in 1..{classes} (the number of classes)")
    return top_k


def json_line(path: Path, result: Result, *, ascii_only: bool = False) -> str:
    """The fields of an HTTP result, and the path. A byte that is not UTF-8 is `\\udcXX`, as in `os.fsdecode`."""
    names = {"index": result.index, "filename": path.name}
    return json.dumps(names | result.model_dump(exclude_none=True) | {"path": str(path)}, ensure_ascii=ascii_only)


def table_line(path: Path, result: Result, width: int) -> str:
    """`photos/cat.jpg   cat 0.970  dog 0.020`, or the reason for an image that failed. `not sure:` comes before labels
    that are below the bundle's threshold, and the set that was asked for after them."""
    if result.error is not None:
        return f"{visible(str(path)):<{width}}  error: {result.error.detail}"
    shown = ["not sure:"] if result.confident is False else []
    shown += [f"{scored.label} {scored.score:.3f}" for scored in result.predictions or []]
    shown += [f"one of {', '.join(result.set.labels)}"] if result.set else []
    return f"{visible(str(path)):<{width}}  {visible('  '.join(shown))}"
