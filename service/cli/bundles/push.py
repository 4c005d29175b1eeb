"""Send a bundle to a registry, a repository of the Hub or a bucket, from where clusters and other stores pull it."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli.bundles import pull
from service.runtime.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a folder, or a name[/version] in the store")
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="oci://REGISTRY/NAME:TAG, hf://ORG/MODEL[@BRANCH], or s3://BUCKET/FOLDER (gs://, az://)",
    )
    parser.add_argument(
        "--sign-key",
        type=Path,
        metavar="FILE",
        help="private ed25519 key: sign the bundle that is sent (manifest.json.sig)",
    )
    parser.add_argument("--insecure-hosts", default="", metavar="HOSTS", help="registries without TLS, comma-separated")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Raises as `pull`."""
    from hub.progress import Progress
    from hub.push import push

    hosts = tuple(arguments.insecure_hosts.split(","))
    with pull.translated():
        written = push(
            arguments.bundle,
            arguments.target,
            console.environ,
            Progress(console.err),
            hosts,
            sign_key=arguments.sign_key,
        )
    print(f"pushed {written}", file=console.out)
    return 0
