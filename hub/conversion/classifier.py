"""The common form of every source, and the bundle made from it.

1. a bundle is written only if its ONNX gives the logits of the truth that it is compared with;
2. accuracy is never claimed: what the source states is in `source`, and nothing was measured here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import numpy as np
from onnx import load_from_string

import models
from hub.conversion.running import Run, Tensors, open_onnx
from hub.errors import Unusable
from models.explanation.features import Explained, explained
from models.explanation.head import tolerance as fp32_tolerance
from models.golden import FILE as GOLDEN_FILE
from models.golden import pack
from models.manifest import Artifact, Golden, Labels, Manifest, Network, Precision, Preprocess, Source, Training
from models.preprocess import SUFFIXES, preprocess
from models.store import Bundle, write_bundle

SAMPLES = Path(models.__file__).parent / "samples"
GOLDEN_IMAGES = 4  # both PNG and JPEG; each takes seconds in numpy for the largest networks
# Largest difference of a logit between two correct engines, per unit of the logits' deviation if that is over 1.
TOLERANCE = 1e-3
INT8_TOLERANCE = 0.1  # steps of quantisation that engines round to either side


@dataclass(frozen=True)
class Classifier:
    """`truth` computes the correct logits; `batch` as in Artifact; `precision`: that of most of its weights."""

    variant: str
    parameters: int
    graph: bytes
    input: str
    output: str
    preprocess: Preprocess
    labels: Sequence[str]
    truth: Run
    framework: str
    dataset: str
    recipe: str
    batch: Literal["dynamic"] | list[int] = "dynamic"
    precision: Precision = "fp32"


def write(classifier: Classifier, source: Source | None, folder: Path) -> Bundle:
    """The new bundle `folder`, which ends in NAME/VERSION. Raises Unusable, and BundleError as write_bundle."""
    paths = sorted(path for path in SAMPLES.iterdir() if path.suffix.lower() in SUFFIXES)[:GOLDEN_IMAGES]
    images = {path.name: path.read_bytes() for path in paths}
    tensors = np.stack([preprocess(encoded, classifier.preprocess) for encoded in images.values()])
    logits = classifier.truth(tensors)
    tolerance = (INT8_TOLERANCE if classifier.precision == "int8" else TOLERANCE) * max(1.0, float(logits.std()))
    _compare(classifier, tensors, logits, tolerance)
    artifact, network = _artifact(classifier, tensors, tolerance)
    files = (
        pack(images, logits.tolist())
        | network
        | {
            "labels.txt": "".join(f"{label}\n" for label in classifier.labels).encode(),
        }
    )
    return write_bundle(folder, _manifest(classifier, source, folder, files, artifact, tolerance), files)


def _compare(classifier: Classifier, tensors: Tensors, logits: Tensors, tolerance: float) -> None:
    wanted = len(tensors), len(classifier.labels)
    if logits.shape != wanted or not np.isfinite(logits).all():
        shape = "logits that are no numbers" if logits.shape == wanted else f"an output of shape {logits.shape}"
        raise Unusable(f"{wanted[0]} images give {shape}; {wanted[1]} labels need {wanted}")
    run = open_onnx(classifier.graph, classifier.input, classifier.output)
    delta = float(np.max(np.abs(np.concatenate([run(tensor[None]) for tensor in tensors]) - logits)))
    if not delta <= tolerance:  # also for NaN
        raise Unusable(f"the converted network differs from its source: largest logit difference {delta:.3g}")


def _artifact(classifier: Classifier, tensors: Tensors, tolerance: float) -> tuple[Artifact, dict[str, bytes]]:
    """The ONNX artifact and its files; with features if these explain its logits."""
    artifact = Artifact(
        format="onnx",
        precision=classifier.precision,
        file="model.onnx",
        sha256=hashlib.sha256(classifier.graph).hexdigest(),
        input=classifier.input,
        output=classifier.output,
        batch=classifier.batch,
    )
    found = explained(load_from_string(classifier.graph))
    if found is None or not explains(found, artifact, tensors, tolerance):
        return artifact, {artifact.file: classifier.graph}
    return found.of(artifact)


def explains(found: Explained, artifact: Artifact, tensors: Tensors, tolerance: float) -> bool:
    """Do the features (N, C, h, w) give the logits of these images? `tolerance`: of a precision below fp32, whose last
    step is rounded too."""
    graph = found.model.SerializeToString()
    logits, features = (
        np.concatenate(list(map(open_onnx(graph, artifact.input, output), tensors[:, None])))
        for output in (artifact.output, found.output)
    )
    delta = found.head.delta(features, logits)
    return delta <= (fp32_tolerance(logits) if artifact.precision == "fp32" else tolerance)


def _manifest(
    classifier: Classifier,
    source: Source | None,
    folder: Path,
    files: dict[str, bytes],
    artifact: Artifact,
    tolerance: float,
) -> Manifest:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    training = Training(
        dataset=classifier.dataset,
        evaluated_on="not measured here",
        recipe=classifier.recipe,
        epochs=0,
        framework=classifier.framework,
        git_commit=os.environ.get("SOURCE_COMMIT") or "unknown",
    )
    return Manifest(
        name=folder.parent.name,
        version=folder.name,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        network=Network(
            variant=classifier.variant, num_classes=len(classifier.labels), parameters=classifier.parameters
        ),
        preprocess=classifier.preprocess,
        labels=Labels(file="labels.txt", sha256=digests["labels.txt"]),
        artifacts=[artifact],
        golden=Golden(file=GOLDEN_FILE, sha256=digests[GOLDEN_FILE], tolerance={classifier.precision: tolerance}),
        training=training,
        source=source,
    )
