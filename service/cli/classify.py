"""Classify image files and print the best labels for each."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from service.api.schemas import Result
from service.errors import UsageError
from service.observe import logs
from service.observe.logs import is_utf8, visible
from service.runtime.console import Console
from service.settings import ENGINE_FLAGS, Settings, add_flags, load_settings

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
    add_flags(parser, FLAGS)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """-> 1 if any image failed; the other images are classified all the same."""
    from service.classify.files import find_images

    settings, _ = load_settings(vars(arguments), console.environ)
    logs.configure("console", console.err, logging.WARNING)
    paths = find_images(arguments.paths)
    width = max(len(visible(str(path))) for path in paths)
    as_json = partial(json_line, ascii_only=not is_utf8(console.out))
    line = as_json if arguments.json else partial(table_line, width=width)
    failed = asyncio.run(_classify(paths, arguments.top_k, settings, line, console))
    return 1 if failed else 0


async def _classify(
    paths: Sequence[Path], top_k: int | None, settings: Settings, line: Callable[[Path, Result], str], console: Console
) -> int:
    """-> the number of images that failed."""
    from service.api.answers import result_of
    from service.classify.files import classify_files, open_classifier, progress_bar

    failed, numbers = 0, count()
    async with open_classifier(settings) as classifier:
        k = check_top_k(top_k, len(classifier.bundle.labels))
        with progress_bar(len(paths), console.err) as bar:
            async for path, fate in classify_files(classifier, paths, top_k=k, settings=settings):
                result = result_of(next(numbers), None, fate)
                failed += result.error is not None
                bar.clear()
                print(line(path, result), file=console.out)
                bar.refresh()
                bar.update()
    return failed


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
    """`photos/cat.jpg   cat 0.970  dog 0.020`, or the reason for an image that failed."""
    if result.error is not None:
        return f"{visible(str(path)):<{width}}  error: {result.error.detail}"
    labels = "  ".join(f"{scored.label} {scored.score:.3f}" for scored in result.predictions or [])
    return f"{visible(str(path)):<{width}}  {visible(labels)}"
