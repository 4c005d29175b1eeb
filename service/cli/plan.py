"""`repvgg doctor --plan`: measure one pod on this machine, and say how many of it a load needs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict

from models import golden
from models.store import open_bundle
from service.classify.tuning import Tuning
from service.errors import UsageError
from service.load.capacity import Impossible, Measured, Plan, plan
from service.load.pod import held_bytes, measure
from service.runtime.console import Console
from service.settings import Settings


def run(arguments: argparse.Namespace, settings: Settings, console: Console) -> int:
    """Raises UsageError, and what opening bundle and engine raises."""
    deadline_s = arguments.deadline_ms / 1000
    bundle = open_bundle(settings.model)
    photos = arguments.photos or (bundle.folder / golden.FILE).parent
    name, tuning, measured = measure(bundle, photos, settings, deadline_s)
    try:
        found = plan(measured, held_bytes(settings), rate=arguments.rate, deadline_s=deadline_s)
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
