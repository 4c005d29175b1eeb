"""Classifies image files on disk the same way as images over HTTP.

1. files are found in sorted order, and the answers come in that order;
2. only a few images are in memory at a time, however many files there are.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn, TextIO

from prometheus_client import CollectorRegistry
from tqdm import tqdm

from models.errors import ImageError
from models.preprocess import SUFFIXES, images_in, read_file
from service.classify.classifier import Classifier
from service.classify.outcomes import LABELS_ONLY, Asked, Outcome
from service.errors import ConfigError, UsageError
from service.machine.limits import usable_cpus
from service.observe.metrics import Metrics
from service.settings import Settings

# A progress bar appears after this time.
LONG_S = 2.0
# For the batch that is running when we stop early, on Ctrl-C for instance.
GRACE_S = 5.0


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files named, and in folders, at any depth, the files with the suffix of an image. Raises UsageError."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += images_in(path)
        elif path.exists():
            found.append(path)
        else:
            hint = ": an address must be downloaded first" if path.parts[0] in ("http:", "https:") else ""
            raise UsageError(f"there is no file or folder {path}{hint}")
    if not found:
        raise UsageError(f"no images found; in a folder, only these count: {', '.join(sorted(SUFFIXES))}")
    return sorted(set(found))


@asynccontextmanager
async def open_classifier(settings: Settings, *, measuring: bool = False) -> AsyncIterator[Classifier]:
    """See Classifier.open. There are no other callers, so no image is rejected for lack of memory."""
    unlimited = settings.model_copy(update={"max_queue_bytes": sys.maxsize})
    classifier = await Classifier.open(unlimited, Metrics(CollectorRegistry()), measuring=measuring)
    try:
        yield classifier
    finally:
        await classifier.close(GRACE_S)


async def classify_files(
    classifier: Classifier, paths: Sequence[Path], *, top_k: int, settings: Settings, asked: Asked = LABELS_ONLY
) -> AsyncIterator[tuple[Path, Outcome]]:
    """Each path with its outcome, in the order given. An unreadable file gives an ImageError too."""
    # Enough to fill the next batches while others are decoded or computed.
    batcher = classifier.batcher
    ahead = 2 * batcher.slots * batcher.max_batch_size + (settings.decode_threads or usable_cpus())
    tasks: deque[tuple[Path, asyncio.Task[Outcome]]] = deque()
    remaining = iter(paths)
    try:
        while True:
            while len(tasks) < ahead and (path := next(remaining, None)):
                tasks.append((path, asyncio.create_task(_classify_file(classifier, path, top_k, asked))))
            if not tasks:
                return
            path, task = tasks.popleft()
            yield path, await task
    finally:
        for _, task in tasks:
            task.cancel()
        await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)


def check_features(classifier: Classifier, what: str) -> None:
    """Raises ConfigError if the engine or the bundle has no features, which `what` needs."""
    if classifier.head is None:
        manifest, engine = classifier.bundle.manifest, classifier.engine
        raise ConfigError(
            f"{what}: {engine.name} {engine.precision} has no features of {manifest.name} {manifest.version}; give "
            "--engine onnxruntime, openvino or ncnn and a bundle that has them: `repvgg convert --bundle` adds them"
        )


def progress_bar(images: int, stream: TextIO) -> tqdm[NoReturn]:
    """Shown on `stream` if that is a terminal and the work takes longer than LONG_S."""
    return tqdm(total=images, unit="image", delay=LONG_S, file=stream, disable=not stream.isatty())


async def _classify_file(classifier: Classifier, path: Path, top_k: int, asked: Asked) -> Outcome:
    # A path given by hand may be a pipe, such as a shell's `<(...)`, which has no suffix.
    read = read_file if path.suffix.lower() in SUFFIXES else Path.read_bytes
    try:
        encoded = await asyncio.to_thread(read, path)
    except OSError as error:
        return ImageError("undecodable_image", f"the file cannot be read: {error.strerror}")
    return (await classifier.classify([encoded], top_k=top_k, deadline=math.inf, asked=asked))[0]
