"""`repvgg inspect --verify`: check every engine in every precision on one bundle."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from models.store import Bundle
from service.errors import EngineUnavailable, GoldenCheckFailed, UsageError
from service.runtime.console import Console
from service.settings import ENGINE_FLAGS, Settings, add_flags

if TYPE_CHECKING:
    from service.engines.conformance import Row

FLAGS = tuple(name for name in ENGINE_FLAGS if name != "precision")  # every precision is checked
# The largest batch, unless the settings give one.
MAX_BATCH_SIZE = 16
COLUMNS = f"{'engine':<15}{'precision':<11}{'max |delta|':<13}{'top-1':<8}images/s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--verify", action="store_true", help="run the conformance checks with every engine; exit code 70 if one fails"
    )
    parser.add_argument(
        "--calls", type=int, default=1000, metavar="N", help="engine calls in these checks (default 1000)"
    )
    add_flags(parser, FLAGS)


def verify(bundle: Bundle, calls: int, settings: Settings, console: Console, *, as_json: bool) -> None:
    """Prints a line per engine and precision, or one JSON object at the end.

    Raises GoldenCheckFailed if an available engine fails a check, EngineUnavailable if no engine is available, and
    UsageError for less than one call.
    """
    if calls < 1:
        raise UsageError(f"--calls {calls} is less than 1")
    rows = []
    for row in _rows(bundle, calls, settings):
        rows.append(row)
        if not as_json:
            print(*[COLUMNS] * (len(rows) == 1), line(row), sep="\n", file=console.out, flush=True)
    if as_json:
        print(json.dumps({"engines": [asdict(row) for row in rows]}), file=console.out)
    failed = [f"{row.engine} {row.precision}" for row in rows if row.failures]
    if failed:
        raise GoldenCheckFailed(f"{', '.join(failed)} failed checks on this bundle")
    if all(row.unavailable for row in rows):
        raise EngineUnavailable("no engine can serve this bundle here")


def _rows(bundle: Bundle, calls: int, settings: Settings) -> Iterator[Row]:
    from service.engine_table import ENGINES
    from service.engines import conformance
    from service.engines.selection import engine_options, engine_threads

    with_artifacts = [name for name, record in ENGINES.items() if record.formats]
    engines = with_artifacts if settings.engine == "auto" else [settings.engine]
    effort = conformance.Effort(
        engine_threads(settings), settings.max_batch_size or MAX_BATCH_SIZE, calls, settings.engine_python
    )
    return conformance.verify(bundle, {name: engine_options(name, settings) for name in engines}, effort)


def line(row: Row) -> str:
    """One line per row, and one for each failure."""
    text = f"{row.engine:<15}{row.precision:<11}"
    if row.unavailable:
        return f"{text}not available: {row.unavailable}"
    if row.max_delta is not None:
        text += f"{row.max_delta:<13.3g}{row.top1_agreement:<8.1%}{row.images_per_second:.0f}"
    return "\n".join([text.rstrip(), *(f"  FAILED {check}: {what}" for check, what in row.failures)])
