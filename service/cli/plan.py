"""`repvgg doctor --plan`: measure one pod on this machine, and say how many of it a load needs."""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from models import golden
from models.manifest import Preprocess
from models.preprocess import images_in, preprocess
from models.store import open_bundle
from service.capacity import Impossible, Measured, Plan, plan
from service.cli.console import Console, UsageError
from service.selection import engine_slots, engine_threads, open_engine
from service.settings import Settings
from service.tuning import Tuning, tune

MOST_PHOTOS = 32
ROUNDS = 3
# Pillow keeps an RGB image in four bytes a pixel.
BYTES_PER_PIXEL = 4


def run(arguments: argparse.Namespace, settings: Settings, console: Console) -> int:
    """Raises UsageError, and what opening bundle and engine raises."""
    deadline_s = arguments.deadline_ms / 1000
    bundle = open_bundle(settings.model)
    photos = _photos(arguments.photos or (bundle.folder / golden.FILE).parent)
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
    try:
        found = plan(measured, _held_bytes(settings), rate=arguments.rate, deadline_s=deadline_s)
    except Impossible as error:
        raise UsageError(f"--deadline-ms: {error}") from error
    if arguments.json:
        facts = {"tuning": asdict(tuning), "measured": asdict(measured), "plan": asdict(found)}
        print(json.dumps(facts), file=console.out)
    else:
        print(f"model     {name}", file=console.out)
        for topic, text in _describe(tuning, measured, found, arguments):
            print(f"{topic:<9} {text}", file=console.out)
    return 0


def _photos(folder: Path) -> list[bytes]:
    photos = [path.read_bytes() for path in islice(sorted(images_in(folder)), MOST_PHOTOS)]
    if not photos:
        raise UsageError(f"--photos {folder} holds no images")
    return photos


def _decode_s(photos: list[bytes], spec: Preprocess) -> float:
    """Of one photo on one CPU, in the fastest round: other work on the machine can only slow it down."""
    rounds_s = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for encoded in photos:
            preprocess(encoded, spec)
        rounds_s.append(time.perf_counter() - started)
    return min(rounds_s) / len(photos)


def _resident_bytes() -> int:
    """At its peak, with a process that hosted the engine. Linux counts in KiB."""
    return sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) << 10


def _held_bytes(settings: Settings) -> int:
    """The queue and the kept answers when full, and a largest image that is decoded on each CPU."""
    decoding = engine_threads(settings) * settings.max_image_pixels * BYTES_PER_PIXEL
    return settings.max_queue_bytes + settings.cache_bytes + decoding


def _describe(
    tuning: Tuning, measured: Measured, found: Plan, arguments: argparse.Namespace
) -> Iterator[tuple[str, str]]:
    """(topic, text) pairs."""
    times = ", ".join(f"t({images}) {seconds * 1000:.2f}" for images, seconds in tuning.batch_s.items())
    yield "measured", f"decode {measured.decode_s * 1000:.2f} ms; {times} ms; {measured.resident_bytes >> 20} MiB"
    yield (
        "pod",
        f"cpu {measured.cpus}, memory {found.memory_bytes >> 20}Mi; at most {measured.images_per_second:.0f} images/s, "
        f"in batches of up to {tuning.max_batch_size}",
    )
    yield "replicas", f"{found.replicas} for {arguments.rate:g} images/s; one may be away"
    yield (
        "autoscale",
        f"minReplicas {found.min_replicas}, maxReplicas {found.max_replicas}; averages: "
        f"repvgg_engine_busy_share {found.busy_share * 1000:.0f}m, "
        f"repvgg_predicted_wait_seconds {found.predicted_wait_s * 1000:.0f}m, repvgg_queue_depth {found.queue_depth}",
    )
    deadline_ms = f"{arguments.deadline_ms:.0f}"
    yield "settings", f"REPVGG_OBJECTIVE_MS={deadline_ms} REPVGG_TIMEOUT_MS={deadline_ms}"
