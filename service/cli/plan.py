"""`repvgg doctor --plan`: measure one pod on this machine, and say how many of it a load needs."""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np

from models import golden
from models.manifest import Preprocess
from models.preprocess import images_in, preprocess
from models.store import Bundle, open_bundle
from service.capacity import Impossible, Limits, Measured, Plan, plan
from service.cli.console import Console, UsageError
from service.engines.base import Engine
from service.selection import open_engine
from service.settings import Settings, usable_cpus

MEASURE_S = 0.3  # each batch size, and decoding
MOST_PHOTOS = 32


def run(arguments: argparse.Namespace, settings: Settings, console: Console) -> int:
    """Raises UsageError, and what opening bundle and engine raises."""
    bundle = open_bundle(settings.model)
    engine, _ = open_engine(bundle, settings)
    name = f"{bundle.manifest.name} {bundle.manifest.version} with {engine.name} {engine.precision} on {engine.device}"
    photos = _photos(arguments.photos or (bundle.folder / golden.FILE).parent)
    measured = _measure(engine, bundle, photos, settings)
    limits = Limits(
        max_image_pixels=settings.max_image_pixels,
        max_body_bytes=settings.max_body_bytes,
        max_queue_images=settings.max_queue_images,
        input_size=bundle.manifest.preprocess.input_size,
    )
    try:
        found = plan(measured, limits, rate=arguments.rate, deadline_s=arguments.deadline_ms / 1000)
    except Impossible as error:
        raise UsageError(f"--deadline-ms: {error}") from error
    if arguments.json:
        print(json.dumps({"measured": asdict(measured), "plan": asdict(found)}), file=console.out)
    else:
        for topic, text in _describe(name, measured, found, arguments):
            print(f"{topic:<9} {text}", file=console.out)
    return 0


def _photos(folder: Path) -> list[bytes]:
    photos = [path.read_bytes() for path in islice(sorted(images_in(folder)), MOST_PHOTOS)]
    if not photos:
        raise UsageError(f"--photos {folder} holds no images")
    return photos


def _measure(engine: Engine, bundle: Bundle, photos: list[bytes], settings: Settings) -> Measured:
    """Closes the engine."""
    spec = bundle.manifest.preprocess
    try:
        decode_s = _fastest_s(lambda: _decode(photos, spec)) / len(photos)
        batch_s = {size: _batch_s(engine, size) for size in _sizes(settings.max_batch_size)}
    finally:
        engine.close()
    return Measured(
        cpus=settings.engine_threads or usable_cpus(),
        decode_s=decode_s,
        batch_s=batch_s,
        shares_cpus=settings.engine_provider == settings.lite_device == "cpu",
        resident_bytes=_resident_bytes(),
    )


def _decode(photos: list[bytes], spec: Preprocess) -> None:
    for encoded in photos:
        preprocess(encoded, spec)


def _batch_s(engine: Engine, size: int) -> float:
    pixels = np.zeros((size, 3, engine.input_size, engine.input_size), np.float32)
    return _fastest_s(lambda: engine.infer(pixels))


def _sizes(most: int) -> Iterator[int]:
    """1, 2, 4 ... and `most`."""
    size = 1
    while size < most:
        yield size
        size *= 2
    yield most


def _fastest_s(work: Callable[[], object]) -> float:
    """Seconds, the fastest of several times: whatever else runs on the machine can only slow it down."""
    work()  # the first time allocates
    give_up_at = time.perf_counter() + MEASURE_S
    fastest_s = float("inf")
    while fastest_s == float("inf") or time.perf_counter() < give_up_at:
        started = time.perf_counter()
        work()
        fastest_s = min(fastest_s, time.perf_counter() - started)
    return fastest_s


def _resident_bytes() -> int:
    """At its peak, with a process that hosted the engine. Linux counts in KiB."""
    return sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) << 10


def _describe(name: str, measured: Measured, found: Plan, arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    times = ", ".join(f"t({size}) {seconds * 1000:.2f}" for size, seconds in measured.batch_s.items())
    yield "model", name
    yield "measured", f"decode {measured.decode_s * 1000:.2f} ms; {times} ms; {measured.resident_bytes >> 20} MiB"
    yield (
        "pod",
        f"cpu {found.cpus}, memory {found.memory_bytes >> 20}Mi, {found.images_per_second:.0f} images/s at most",
    )
    yield "replicas", f"{found.replicas} for {arguments.rate:g} images/s; one may be away"
    yield (
        "autoscale",
        f"minReplicas {found.min_replicas}, maxReplicas {found.max_replicas}; averages: "
        f"repvgg_engine_busy_share {found.busy_share * 1000:.0f}m, "
        f"repvgg_predicted_wait_seconds {found.predicted_wait_s * 1000:.0f}m, repvgg_queue_depth {found.queue_depth}",
    )
    yield "settings", f"REPVGG_MAX_BATCH_SIZE={found.max_batch_size} REPVGG_TIMEOUT_MS={arguments.deadline_ms:.0f}"
