"""List the bundles of a store."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from models.manifest import Manifest
from models.store import STORE
from service.observe.logs import visible
from service.runtime.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", type=Path, default=STORE, metavar="DIR", help="folder of bundles (default: ours)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")


def run(arguments: argparse.Namespace, console: Console) -> int:
    from hub import shelf

    for folder, found in shelf.bundles(arguments.store):
        name, megabytes = str(folder.relative_to(arguments.store)), shelf.size(folder) / 1e6
        if arguments.json:
            more = {"manifest": found.model_dump(mode="json")} if isinstance(found, Manifest) else {"error": str(found)}
            print(json.dumps({"name": name, "bytes": shelf.size(folder)} | more), file=console.out)
        else:
            print(visible(f"{name:<40} {megabytes:>8.1f} MB  {_describe(found)}"), file=console.out)
    return 0


def _describe(found: object) -> str:
    if not isinstance(found, Manifest):
        return f"unusable: {found}"
    origin = f", from {found.source.address}" if found.source else ""
    return f"{found.network.variant}, {found.network.num_classes} classes{origin}"
