"""Make a bundle from local weights, an ONNX file or another bundle, without a training framework."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli.bundles import pull
from service.runtime.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", type=Path, metavar="FILE", help="ONNX, .safetensors or torch.save")
    source.add_argument(
        "--bundle", metavar="BUNDLE", help="an older bundle, to write a --version of it that explains its answers"
    )
    pull.add_how(parser)
    pull.add_place(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Raises as `pull`."""
    from hub.progress import Progress
    from hub.pull import convert, explain

    with pull.translated():
        request, progress = pull.request_of(arguments), Progress(console.err)
        if arguments.bundle:
            bundle = explain(arguments.bundle, request, progress)
        else:
            bundle = convert(arguments.weights, request, progress)
    print(pull.ready(bundle), file=console.out)
    return 0
