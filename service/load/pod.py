"""Measures one pod on this machine: decoding, the engine, and memory."""

from __future__ import annotations

import resource
import time
from itertools import islice
from pathlib import Path

from models.manifest import Preprocess
from models.preprocess import images_in, preprocess, read_file
from models.store import Bundle
from service.classify.speed.tuning import Tuning, tune
from service.engines.selection import engine_slots, engine_threads, open_engine
from service.errors import UsageError
from service.load.capacity import Measured
from service.settings import Settings

MOST_PHOTOS = 32
ROUNDS = 3
# Pillow stores an RGB image in four bytes per pixel.
BYTES_PER_PIXEL = 4


def measure(bundle: Bundle, folder: Path, settings: Settings, deadline_s: float) -> tuple[str, Tuning, Measured]:
    """The model and engine in words, and their speed on the photos in `folder`.

    Raises UsageError, and whatever opening the engine raises.
    """
    photos = _photos(folder)
    engine, _ = open_engine(bundle, settings)
    name = f"{bundle.manifest.name} {bundle.manifest.version} with {engine.name} {engine.precision} on {engine.device}"
    try:
        tuning = tune(engine, engine_slots(engine.name, settings), settings.max_batch_size, deadline_s)
        decode_s = _decode_s(photos, bundle.manifest.preprocess)
    finally:
        engine.close()
    measured = Measured(
        cpus=engine_threads(settings),
        decode_s=decode_s,
        alone_s=tuning.batch_s[1],
        image_s=tuning.image_s,
        shares_cpus=settings.engine_provider == settings.lite_device == "cpu",
        resident_bytes=_resident_bytes(),
    )
    return name, tuning, measured


def _photos(folder: Path) -> list[bytes]:
    try:
        photos = [read_file(path) for path in islice(sorted(images_in(folder)), MOST_PHOTOS)]
    except OSError as error:
        raise UsageError(f"--photos: {error.filename} cannot be read: {error.strerror}") from error
    if not photos:
        raise UsageError(f"--photos {folder} has no images")
    return photos


def _decode_s(photos: list[bytes], spec: Preprocess) -> float:
    """Per photo on one CPU, in the fastest round, since other work on the machine can only slow it down."""
    rounds_s = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for encoded in photos:
            preprocess(encoded, spec)
        rounds_s.append(time.perf_counter() - started)
    return min(rounds_s) / len(photos)


def _resident_bytes() -> int:
    """Peak resident memory of this process and of an engine process that it started; Linux counts in KiB."""
    return sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) << 10


def held_bytes(settings: Settings) -> int:
    """A full queue, a full answer cache, and the largest allowed image being decoded on each CPU."""
    decoding = engine_threads(settings) * settings.max_image_pixels * BYTES_PER_PIXEL
    return settings.max_queue_bytes + settings.cache_bytes + decoding
