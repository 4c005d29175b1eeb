"""A head on a bundle's backbone -> a draft of a new bundle; drafts -> the bundle.

1. golden logits are the features times the new classifier, in double precision, and the written network must give them;
2. it explains its answers if the network ends in a mean over a feature map, and the feature map gives the logits;
3. labels, preprocessing and accuracy are those of the fit;
4. the bundle appears once, with all its precisions and formats.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import sklearn

from models import golden
from models.errors import BundleError
from models.explanation.features import explained
from models.explanation.head import Head, tolerance
from models.manifest import Artifact, Golden, Labels, Manifest, Network, Training
from models.preprocess import SUFFIXES, at_size, preprocess
from models.store import Bundle, name_and_version, write_bundle
from models.versions import write_version
from training.errors import TrainingError
from training.own.backbone import ENGINE, Backbone, Floats, session
from training.own.classifier.figures import Answers
from training.own.publishing.addition import Addition
from training.own.seen import Seen
from training.run.checkpoints.commit import git_commit

SAMPLES = Path(__file__).parents[3] / "models" / "samples"
# Largest difference of a logit between two correct engines, per unit of the logits' deviation if that is over 1.
TOLERANCE = 1e-3


def draft(
    bundle: Bundle, backbone: Backbone, head: Head, seen: Seen, answers: Answers, out: Path, dataset: str
) -> Bundle:
    """Write the network with its new classifier as the bundle `out`. Raises TrainingError."""
    spec = at_size(bundle.manifest.preprocess, seen.size)
    images = {path.name: path.read_bytes() for path in sorted(SAMPLES.iterdir()) if path.suffix.lower() in SUFFIXES}
    tensors = np.stack([preprocess(encoded, spec) for encoded in images.values()])
    logits = head(np.concatenate([backbone.compute(tensor[None]) for tensor in tensors]))
    allowed = TOLERANCE * max(1.0, float(logits.std()))
    artifact, network = _network(backbone, head, tensors, logits, allowed)
    files = network | golden.pack(images, logits.tolist())
    files["labels.txt"] = "".join(f"{label}\n" for label in seen.classes).encode()
    name, version = name_and_version(out)
    old = bundle.manifest
    manifest = Manifest(
        name=name,
        version=version,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        network=Network(
            variant=old.network.variant,
            num_classes=len(seen.classes),
            parameters=old.network.parameters - backbone.classifier().size + head.size,
        ),
        preprocess=spec,
        labels=Labels(file="labels.txt", sha256=_sha256(files["labels.txt"])),
        artifacts=[artifact],
        golden=Golden(file=golden.FILE, sha256=_sha256(files[golden.FILE]), tolerance={"fp32": allowed}),
        training=_training(old, answers, dataset),
        temperature=answers.temperature,
        source=old.source and old.source.model_copy(update={"published": None}),
    )
    try:
        return write_bundle(out, manifest, files)
    except BundleError as error:
        raise TrainingError(str(error)) from error


def _network(
    backbone: Backbone, head: Head, tensors: Floats, logits: Floats, allowed: float
) -> tuple[Artifact, dict[str, bytes]]:
    """The artifact and its files, which turn `tensors` (N, 3, S, S) into `logits` (N, K). Raises TrainingError."""
    model = backbone.with_head(head, tensors.shape[-1])
    found = explained(model)
    content = (found.model if found else model).SerializeToString()
    outputs = session(content).run(None, {backbone.input: tensors})
    if not (delta := float(np.abs(outputs[0] - logits).max())) <= allowed:  # also for NaN
        raise TrainingError(f"the network with its new classifier is off by {delta:.3g}: nothing is written")
    if found and not found.head.delta(outputs[1], outputs[0]) <= tolerance(outputs[0]):
        found, content = None, model.SerializeToString()
    artifact = Artifact(
        format="onnx",
        precision="fp32",
        file="model.onnx",
        sha256=_sha256(content),
        input=backbone.input,
        output=backbone.output,
        batch="dynamic",
    )
    return found.of(artifact) if found else (artifact, {artifact.file: content})


def _training(old: Manifest, answers: Answers, dataset: str) -> Training:
    return Training(
        dataset=dataset,
        evaluated_on=f"{dataset}, {answers.how}",
        recipe=f"training.start: a new classifier on {old.name}/{old.version}",
        epochs=0,
        top1=answers.accuracy,
        top5=answers.top5,
        framework=f"scikit-learn {sklearn.__version__}, {ENGINE}",
        git_commit=git_commit(),
        licence=old.training.licence,
    )


def facts_of_tuned(base: Bundle, tuned: Bundle, answers: Answers, dataset: str) -> dict[str, Any]:
    """The manifest entries for a fine-tuned network of `base`, exported as the bundle `tuned`."""
    facts = {
        "dataset": dataset,
        "evaluated_on": f"{dataset}, {answers.how}",
        "top1": answers.accuracy,
        "top5": answers.top5,
        "licence": base.manifest.training.licence,
    }
    return {"training": tuned.manifest.training.model_copy(update=facts), "temperature": answers.temperature}


def publish(drafted: Bundle, out: Path, additions: Iterable[Addition | None], facts: Mapping[str, Any]) -> Bundle:
    """Write the bundle `out`: the draft, the additions, and the manifest keys `facts`. Raises TrainingError."""
    artifacts: list[Artifact] = []
    files: dict[str, bytes | Path] = {}
    tolerance: dict[str, float] = {}
    changes = dict(facts)
    for one in additions:
        if one:
            artifacts += one.artifacts
            files |= one.files
            tolerance |= one.tolerance
            changes |= one.changes
    try:
        return write_version(drafted, out, artifacts, files, tolerance, **changes)
    except BundleError as error:
        raise TrainingError(str(error)) from error


def engines(folder: Path) -> list[str]:
    """The result of `repvgg inspect --verify` for every engine that can serve the bundle here, one line each."""
    command = [
        sys.executable,
        "-m",
        "service",
        "inspect",
        str(folder),
        "--verify",
        "--calls",
        "2",
        "--max-batch-size",
        "2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    lines = [line for line in done.stdout.splitlines()[1:] if "not available" not in line]
    return lines or [f"the engines could not be checked: {done.stderr.strip().splitlines()[-1:]}"]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
