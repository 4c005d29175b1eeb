"""Check whether this machine can serve, and what to fix if not; with --plan, compute how many pods a load needs."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path

from service.cli.numbers import add_price, positive
from service.errors import UsageError
from service.observe import logs
from service.observe.logs import visible
from service.runtime.console import Console
from service.settings import ENGINE_FLAGS, add_flags, load_settings

FLAGS = ("model", *ENGINE_FLAGS, "pixels", "decode_threads", "max_image_pixels", "host", "port")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--plan", action="store_true", help="measure this machine and compute how many pods like it a load needs"
    )
    parser.add_argument("--rate", type=positive, metavar="R", help="with --plan: peak load, images per second")
    parser.add_argument(
        "--deadline-ms", type=positive, metavar="D", help="with --plan: deadline of a request, milliseconds"
    )
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="FOLDER",
        help="with --plan: images like those you expect (default: the bundle's golden images)",
    )
    add_price(parser)
    add_flags(parser, FLAGS)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Prints every finding, then raises the first error that keeps the service from serving; or with --plan prints what
    a load needs. Raises UsageError.
    """
    if len({arguments.plan, arguments.rate is not None, arguments.deadline_ms is not None}) > 1:
        raise UsageError("--plan, --rate R and --deadline-ms D must be given together")
    settings, warnings = load_settings(vars(arguments), console.environ)
    logs.configure("console", console.err, logging.WARNING)
    if arguments.plan:
        from service.cli import plan

        return plan.run(arguments, settings, console)
    from service.runtime.diagnosis import examine

    findings, errors = examine(settings, warnings)
    if arguments.json:
        print(json.dumps({"can_serve": not errors, "findings": [asdict(one) for one in findings]}), file=console.out)
    else:
        for one in findings:
            print(visible(f"{one.level:<8} {one.topic:<9} {one.text}"), file=console.out)
    if errors:
        raise errors[0]
    return 0
