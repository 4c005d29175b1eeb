"""The command `repvgg`: one verb a module, and exit codes that a script or an orchestrator can act on.

1. what can go wrong ends in one clear line on stderr and its own exit code; only a bug shows a traceback;
2. nothing heavy is imported before a verb runs: `repvgg --help` is quick.

Adding a verb is one module with `add_arguments` and `run`, and one line in VERBS.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol, TextIO

from models.errors import BundleError
from service.cli import bench, classify, doctor, evaluate, inspect, serve
from service.cli.console import AddressUnavailable, Console, UsageError
from service.errors import ConfigError, EngineUnavailable, GoldenCheckFailed, ServiceError


class Verb(Protocol):
    """A module of this package; the first line of its docstring is its help."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace, console: Console) -> int: ...


VERBS: dict[str, Verb] = {
    "serve": serve,
    "classify": classify,
    "evaluate": evaluate,
    "bench": bench,
    "inspect": inspect,
    "doctor": doctor,
}

# As in sysexits.h; 2 is what argparse uses.
EXIT_CODES: dict[type[Exception], int] = {
    UsageError: 2,
    BundleError: 66,
    AddressUnavailable: 69,
    EngineUnavailable: 69,
    GoldenCheckFailed: 70,
    ConfigError: 78,
}
FAILURE = 1
INTERRUPTED = 130

log = logging.getLogger(__name__)


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """Run one verb -> exit code. Raises SystemExit for --help (0) and wrong usage (2), as argparse does."""
    console = Console(environ, out or sys.stdout, err or sys.stderr)
    arguments = build_parser().parse_args(argv)
    try:
        code = VERBS[arguments.verb].run(arguments, console)
        console.out.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output, `head` for instance, has enough. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:  # noqa: BLE001  # the last resort; what is not expected is logged there
        return _report(error, arguments.verb, console)


def _report(error: Exception, verb: str, console: Console) -> int:
    code = next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), FAILURE)
    if code != FAILURE:
        print(f"repvgg {verb}: {error}", file=console.err)
    elif isinstance(error, ServiceError):
        print(f"repvgg {verb}: stopped: {error}", file=console.err)
    else:
        log.error("repvgg %s failed", verb, exc_info=error)
        print(f"repvgg {verb}: {type(error).__name__}: {error}", file=console.err)
    return code


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="repvgg",
        description="Classify images with a RepVGG model bundle.",
        epilog="exit codes: 0 clean, 1 failure while running, 2 usage, 66 bundle missing or corrupt, "
        "69 port, device or server unavailable, 70 golden check failed, 78 bad configuration",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, module in VERBS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        verb = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        module.add_arguments(verb)
    return parser
