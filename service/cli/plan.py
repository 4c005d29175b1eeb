"""`repvgg doctor --plan`: measure one pod on this machine and compute how many of them a load needs."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from models import golden
from service.engines.trusted import open_trusted
from service.errors import UsageError
from service.load.capacity import Impossible, describe, plan
from service.load.pod import held_bytes, measure
from service.runtime.console import Console
from service.settings import Settings


def run(arguments: argparse.Namespace, settings: Settings, console: Console) -> int:
    """Raises UsageError, and whatever opening the bundle and the engine raises."""
    rate, deadline_s = arguments.rate, arguments.deadline_ms / 1000
    bundle = open_trusted(settings)
    photos = arguments.photos or (bundle.folder / golden.FILE).parent
    name, tuning, measured = measure(bundle, photos, settings, deadline_s)
    try:
        found = plan(measured, held_bytes(settings), rate=rate, deadline_s=deadline_s)
    except Impossible as error:
        raise UsageError(f"--deadline-ms: {error}") from error
    if arguments.json:
        facts = {"tuning": asdict(tuning), "measured": asdict(measured), "plan": asdict(found)}
        print(json.dumps(facts), file=console.out)
        return 0
    print(f"model     {name}", file=console.out)
    for topic, text in describe(
        measured, found, tuning, rate=rate, deadline_s=deadline_s, price=arguments.core_hour_price
    ):
        print(f"{topic:<9} {text}", file=console.out)
    return 0
