"""An older bundle -> a new version whose ONNX artifacts explain their answers.

1. the network computes the same as before, and every other file stays as it is;
2. an artifact is changed only if its feature map gives its logits, on the bundle's own golden images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from hub.conversion.classifier import explains
from hub.errors import Unusable
from models import golden
from models.explanation.features import explained
from models.manifest import Artifact
from models.store import Bundle
from models.versions import write_version


def add_features(bundle: Bundle, folder: Path, say: Callable[[str], None]) -> Bundle:
    """The new bundle `folder`. Raises Unusable if no artifact can explain its answers, and BundleError."""
    artifacts: list[Artifact] = []
    files: dict[str, bytes | Path] = {}
    for artifact in bundle.manifest.artifacts:
        if artifact.format != "onnx":
            continue
        found = explained(onnx.load_model(bundle.path(artifact)))
        if found is None:
            say(f"  {artifact.file} stays as it is: it does not end in a mean over the image and a matrix")
            continue
        allowed = bundle.manifest.golden.tolerance.get(artifact.precision, 0.0)
        if not explains(found, artifact, golden.load(bundle)[0], allowed):
            say(f"  {artifact.file} stays as it is: its feature map does not give its logits")
            continue
        changed, content = found.of(artifact)
        artifacts.append(changed)
        files |= content
    if not artifacts:
        raise Unusable(f"{bundle.folder} has no ONNX artifact that can explain its answers: nothing is written")
    return write_version(bundle, folder, artifacts, files)
