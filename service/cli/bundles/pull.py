"""Fetch a bundle or published weights, convert and verify them, and say how to serve them."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import BundleError
from models.store import STORE, Bundle
from service.errors import AddressUnavailable, ConfigError, UsageError
from service.observe.logs import visible
from service.runtime.console import Console

if TYPE_CHECKING:
    from hub.pull import Request

# Of packages outside the extra `pull`.
EXTRAS = {"cryptography": "signing"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="hf://ORG/MODEL[@REVISION], a short name such as repvgg-a0, https:// weights, ONNX or .tar of a bundle, "
        "oci://REGISTRY/NAME:TAG, or s3://BUCKET/FOLDER (gs://, az://)",
    )
    parser.add_argument("--list", action="store_true", help="print the table of short names")
    add_place(parser)
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of hf:// (default: main)")
    parser.add_argument(
        "--insecure-hosts",
        default="",
        metavar="HOSTS",
        help="comma-separated hosts that may be private or without TLS",
    )
    parser.add_argument(
        "--sha256", metavar="HEX", help="digest of the download from https://; without it, the digest is printed"
    )
    parser.add_argument(
        "--verify-key", type=Path, metavar="FILE", help="public ed25519 key: refuse bundles that are not signed with it"
    )
    add_how(parser)


def add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", type=Path, default=STORE, metavar="DIR", help="folder of bundles to write to (default: the store)"
    )
    parser.add_argument("--name", metavar="N", help="name of the bundle (default: its source's)")
    parser.add_argument("--version", metavar="V", help="version of the bundle (default: its source's)")


def add_how(parser: argparse.ArgumentParser) -> None:
    """What a single file does not say about itself."""
    parser.add_argument("--from", dest="format", metavar="WHO", help="who wrote the file: onnx, timm or pytorch")
    parser.add_argument("--arch", metavar="NAME", help="variant of RepVGG weights, such as RepVGG-A0")
    parser.add_argument(
        "--preprocess",
        metavar="WHAT",
        help="a preprocessor_config.json, a timm config.json, a manifest, or size=224,crop_pct=0.875,interpolation=...",
    )
    parser.add_argument("--labels", metavar="FILE", help="one label per line, or imagenet")
    parser.add_argument("--output", metavar="NAME", help="output of an ONNX graph that has several")
    parser.add_argument("--ema", action="store_true", help="the averaged weights of a training script's checkpoint")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Raises UsageError, AddressUnavailable, BundleError and ConfigError."""
    if arguments.list:
        from hub import catalogue

        print(catalogue.table(), file=console.out)
        return 0
    if not arguments.source:
        raise UsageError("give a SOURCE, or --list to see the short names")
    print(ready(pull(request_of(arguments), console)), file=console.out)
    return 0


def request_of(arguments: argparse.Namespace) -> Request:
    from hub.addresses import How
    from hub.pull import Request

    given = vars(arguments)
    return Request(
        source=given.get("source") or "",
        store=arguments.store,
        name=arguments.name,
        version=arguments.version,
        revision=given.get("revision"),
        insecure_hosts=tuple(given.get("insecure_hosts", "").split(",")),
        sha256=given.get("sha256"),
        verify_key=given.get("verify_key"),
        how=How(
            arguments.format, arguments.arch, arguments.preprocess, arguments.labels, arguments.output, arguments.ema
        ),
    )


def pull(request: Request, console: Console) -> Bundle:
    """Raises as `run`."""
    from hub.progress import Progress
    from hub.pull import pull as fetch

    with translated():
        return fetch(request, console.environ, Progress(console.err))


@contextmanager
def translated() -> Iterator[None]:
    """Turns the hub's errors into errors that have an exit code."""
    from hub import errors

    try:
        yield
    except ImportError as error:
        extra = EXTRAS.get(error.name or "", "pull")
        raise ConfigError(f"this needs {error.name}, which is not installed: pip install 'repvgg[{extra}]'") from error
    except errors.WrongRequest as error:
        raise UsageError(str(error)) from error
    except errors.Unreachable as error:
        raise AddressUnavailable(str(error)) from error
    except (errors.NoSpace, errors.NotInstalled) as error:
        raise ConfigError(str(error)) from error
    except errors.HubError as error:
        raise BundleError(str(error)) from error


def pull_for_serving(address: str, verify_key: str, console: Console) -> str:
    """`repvgg serve --model hf://...` -> the folder of the bundle, in the user's cache. Raises as `run`."""
    from hub.places.downloads import cache
    from hub.pull import Request

    key = Path(verify_key) if verify_key else None
    return str(pull(Request(address, cache(console.environ).parent / "bundles", verify_key=key), console).folder)


def ready(bundle: Bundle) -> str:
    """What was written, and the command that serves it."""
    manifest = bundle.manifest
    lines = [f"{bundle.folder}: {manifest.network.variant}, {len(bundle.labels)} classes, verified"]
    if source := manifest.source:
        lines.append(f"  from {source.address} at {source.revision}, licence: {source.licence or 'not stated'}")
        if published := source.published:
            lines.append(f"  top-1 {published.top1:.2%} on {published.dataset} as {published.stated_by} states it")
    return "\n".join(map(visible, lines)) + f"\nrepvgg serve --model {shlex.quote(str(bundle.folder))}"
