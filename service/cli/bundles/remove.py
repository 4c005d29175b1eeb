"""Remove a bundle from a store."""

from __future__ import annotations

import argparse
from pathlib import Path

from models.store import STORE
from service.cli.bundles.pull import translated
from service.runtime.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="NAME/VERSION")
    parser.add_argument("--store", type=Path, default=STORE, metavar="DIR", help="folder of bundles (default: ours)")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Raises UsageError for a bundle that does not exist."""
    from hub import shelf

    with translated():
        print(f"removed {shelf.remove(arguments.bundle, arguments.store)}", file=console.out)
    return 0
