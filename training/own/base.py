"""The network to start from: a bundle, or a checkpoint of training.train, which is turned into a bundle first.

1. a bundle must first pass its own golden check, on the engine that computes the features;
2. what a checkpoint does not say about itself is an error that says how to give it.
"""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from models import golden
from models.errors import BundleError
from models.store import Bundle, open_bundle
from training.errors import DataError
from training.own.backbone import Backbone
from training.own.processes import last_words, run_verb


def open_base(name: str, folder: Path) -> tuple[Bundle, Backbone]:
    """`folder`: where a checkpoint's bundle is written. Raises DataError unless the network gives the expected
    answers."""
    model: str | Path = _converted(Path(name), folder) if name.endswith(".ckpt") else name
    try:
        bundle = open_bundle(model)
    except BundleError as error:
        raise DataError(f"--from {name}: {error}") from error
    backbone = Backbone(bundle)
    check(bundle, backbone)
    return bundle, backbone


def _converted(file: Path, folder: Path) -> Path:
    """-> the bundle of a checkpoint. Raises DataError."""
    if not file.is_file():
        raise DataError(f"--from {file} does not exist")
    if find_spec("mindspore") is None:
        raise DataError(f"--from {file} is a checkpoint, which needs MindSpore: pip install 'repvgg[train]'")
    shutil.rmtree(folder, ignore_errors=True)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{file.absolute().parent.name}-{file.stem}").lstrip("._-")
    written, log = folder / (name or "checkpoint") / "1", folder / "convert.log"
    if run_verb("convert", ["--from", "own", "--weights", file, "--out", written], None, log):
        raise DataError(f"--from {file}: {last_words(log)}")
    return written


def check(bundle: Bundle, backbone: Backbone) -> None:
    """Raises DataError if the bundle does not give the same answers here as where it was made."""
    head = backbone.classifier()
    try:
        report = golden.check(bundle, "fp32", lambda tensors: head(backbone.compute(tensors)))
    except BundleError as error:
        raise DataError(str(error)) from error
    if not report.ok:
        raise DataError(
            f"{bundle.folder} fails its golden check (largest logit difference {report.max_delta:.3g}): use another one"
        )
