"""Fetch a bundle or published weights, convert and verify them, and say how to serve them."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import BundleError
from models.store import STORE, Bundle
from service.errors import AddressUnavailable, ConfigError, UsageError
from service.observe.logs import visible
from service.runtime.console import Console

if TYPE_CHECKING:
    from hub.pull import Request

INSTALL = "pip install 'repvgg[pull]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", nargs="?", help="hf://ORG/MODEL[@REVISION], or a short name such as repvgg-a0"
    )
    parser.add_argument("--list", action="store_true", help="print the table of short names")
    parser.add_argument(
        "--store", type=Path, default=STORE, metavar="DIR", help="folder of bundles to write to (default: the store)"
    )
    parser.add_argument("--name", metavar="N", help="name of the bundle (default: the repository's)")
    parser.add_argument("--version", metavar="V", help="version of the bundle (default: the commit's first letters)")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of hf:// (default: main)")
    parser.add_argument(
        "--insecure-hosts",
        default="",
        metavar="HOSTS",
        help="comma-separated hosts that may be private, and without TLS",
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Raises UsageError, AddressUnavailable, BundleError and ConfigError."""
    _import_hub()
    if arguments.list:
        from hub import catalogue

        print(catalogue.table(), file=console.out)
        return 0
    if not arguments.source:
        raise UsageError("give a SOURCE, or --list to see the short names")
    from hub.pull import Request

    hosts = tuple(arguments.insecure_hosts.split(","))
    request = Request(arguments.source, arguments.store, arguments.name, arguments.version, arguments.revision, hosts)
    print(ready(pull(request, console)), file=console.out)
    return 0


def pull(request: Request, console: Console) -> Bundle:
    """Raises as `run`."""
    from hub import errors
    from hub.progress import Progress
    from hub.pull import pull as fetch

    try:
        return fetch(request, console.environ, Progress(console.err))
    except errors.WrongRequest as error:
        raise UsageError(str(error)) from error
    except errors.Unreachable as error:
        raise AddressUnavailable(str(error)) from error
    except errors.NoSpace as error:
        raise ConfigError(str(error)) from error
    except errors.HubError as error:
        raise BundleError(str(error)) from error


def pull_for_serving(address: str, console: Console) -> str:
    """`repvgg serve --model hf://...` -> the folder of the bundle. Raises as `run`."""
    _import_hub()
    from hub.pull import Request

    return str(pull(Request(address), console).folder)


def _import_hub() -> None:
    try:
        import hub.pull
        import hub.repository  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed, which pull needs: {INSTALL}") from error


def ready(bundle: Bundle) -> str:
    """What was written, and the line that serves it."""
    manifest = bundle.manifest
    lines = [f"{bundle.folder}: {manifest.network.variant}, {len(bundle.labels)} classes, verified"]
    if source := manifest.source:
        lines.append(f"  from {source.address} at {source.revision}, licence: {source.licence or 'not stated'}")
        if published := source.published:
            lines.append(f"  top-1 {published.top1:.2%} on {published.dataset} as {published.stated_by} states it")
    return "\n".join(map(visible, lines)) + f"\nrepvgg serve --model {shlex.quote(str(bundle.folder))}"
