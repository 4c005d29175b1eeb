"""Make a bundle of weights or of an ONNX file that is here, without a training framework."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import pull
from service.runtime.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="ONNX, .safetensors or torch.save")
    pull.add_how(parser)
    pull.add_place(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Raises as `pull`."""
    from hub.progress import Progress
    from hub.pull import convert

    with pull.translated():
        bundle = convert(arguments.weights, pull.request_of(arguments), Progress(console.err))
    print(pull.ready(bundle), file=console.out)
    return 0
