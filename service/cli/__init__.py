"""The command `repvgg`: one module per verb, and exit codes that scripts and orchestrators can act on.

1. every expected error ends in one clear line on stderr and its own exit code; only a bug shows a traceback;
2. nothing heavy is imported before a verb runs, so `repvgg --help` is quick;
3. a verb parses arguments, calls the rooms below and prints; it computes nothing itself.

To add a verb, write a module with `add_arguments` and `run`, and add a line to VERBS.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any, Protocol, TextIO

from service.cli import bench, classify, doctor, embed, evaluate, serve
from service.cli.bundles import convert, inspect, pull, push, remove, shelf
from service.runtime.console import Console, OutputLost
from service.runtime.exits import report


class Verb(Protocol):
    """A module of this room or of `bundles`; the first line of its docstring is its help text."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace, console: Console) -> int: ...


VERBS: dict[str, Verb] = {
    "serve": serve,
    "pull": pull,
    "push": push,
    "convert": convert,
    "list": shelf,
    "remove": remove,
    "classify": classify,
    "embed": embed,
    "evaluate": evaluate,
    "bench": bench,
    "inspect": inspect,
    "doctor": doctor,
}

INTERRUPTED = 130


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """Run one verb -> exit code. Raises SystemExit for --help (0) and wrong usage (2), as argparse does."""
    console = Console.standard(environ, out, err)
    try:
        arguments = _parse(argv, console)
    except OutputLost as error:
        return 0 if error.is_pipe else report(error, "--help", console)  # `repvgg --help | head -1`
    try:
        code = VERBS[arguments.verb].run(arguments, console)
        console.out.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the last resort; what is not expected is logged there
        return report(error, arguments.verb, console)


def _parse(argv: Sequence[str] | None, console: Console) -> argparse.Namespace:
    """Raises SystemExit as argparse does, and OutputLost if the help cannot be written, which argparse would ignore."""
    if sys.stdout is None:
        return build_parser().parse_args(argv)
    try:
        with redirect_stdout(console.out):
            return build_parser().parse_args(argv)
    except SystemExit:
        console.out.flush()
        raise


class Parser(argparse.ArgumentParser):
    """Reports an unknown flag in one line, instead of printing the whole usage."""

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        arguments, unknown = super().parse_known_args(*args, **kwargs)
        if unknown:
            flag = unknown[0].partition("=")[0]
            likely = difflib.get_close_matches(
                flag.replace("_", "-"), re.findall(r"--[\w-]+", self.format_usage()), n=1
            )
            meant = f" did you mean {likely[0]}?" if likely else ""
            self.exit(2, f"{self.prog}: error: there is no {flag};{meant} see {self.prog} --help\n")
        return arguments, unknown


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="repvgg",
        description="Classify images with a RepVGG model bundle.",
        epilog="exit codes: 0 success, 1 failure while running, 2 wrong usage, 66 bundle missing or corrupt, "
        "69 port, device or server unavailable, 70 golden check failed, 78 invalid configuration",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, module in VERBS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        verb = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        module.add_arguments(verb)
    return parser
