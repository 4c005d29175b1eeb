"""Write the features of image files, for search and clustering, into one file."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from service.observe import logs
from service.observe.logs import visible
from service.runtime.console import Console
from service.settings import ENGINE_FLAGS, Settings, add_flags, load_settings

if TYPE_CHECKING:
    from service.classify.embeddings import Embeddings

FLAGS = (
    "model",
    *ENGINE_FLAGS,
    "pixels",
    "decode_threads",
    "max_image_pixels",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.npz, FILE.csv or FILE.parquet")
    parser.add_argument("--normalize", action="store_true", help="make each embedding of length 1")
    add_flags(parser, FLAGS)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """-> 1 if any image failed; it is named on stderr, and the others are written."""
    from service.classify import embeddings
    from service.classify.files import find_images

    embeddings.check(arguments.out)
    settings, _ = load_settings(vars(arguments), console.environ)
    logs.configure("console", console.err, logging.WARNING)
    paths = find_images(arguments.paths)
    found = asyncio.run(_embed(paths, settings, arguments.normalize, console))
    if found.rows:
        found.write(arguments.out)
        rows, size = len(found.rows), len(found.rows[0])
        print(visible(f"{arguments.out}: {rows} embeddings of {size} numbers, {found.model}"), file=console.out)
    return 0 if len(found.rows) == len(paths) else 1


async def _embed(paths: Sequence[Path], settings: Settings, normalize: bool, console: Console) -> Embeddings:
    from service.classify.embeddings import Embeddings
    from service.classify.files import check_features, classify_files, open_classifier, progress_bar
    from service.classify.outcomes import Asked, Classified

    async with open_classifier(settings) as classifier:
        check_features(classifier, "embed")
        manifest, asked = classifier.bundle.manifest, Asked(embedding=True, normalize=normalize)
        found = Embeddings(f"{manifest.name} {manifest.version} {classifier.engine.precision}")
        with progress_bar(len(paths), console.err) as bar:
            async for path, fate in classify_files(classifier, paths, top_k=1, settings=settings, asked=asked):
                if isinstance(fate, Classified) and fate.embedding is not None:
                    found.add(path, fate.embedding)
                else:
                    bar.clear()
                    print(visible(f"{path}: {fate}"), file=console.err)
                    bar.refresh()
                bar.update()
    return found
