"""Checkpoint -> model bundle or single model files: the fused network, with labels and golden logits.

1. only the fused network is exported;
2. an artifact whose logits differ from MindSpore's is not written;
3. top-1 and top-5 in the manifest were measured with the fused network on all images of the val split;
4. an existing file is replaced completely or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import numpy as np
from mindspore import nn
from numpy.typing import NDArray

from models.errors import BundleError, ImageError
from models.golden import FILE as GOLDEN_FILE
from models.golden import pack
from models.manifest import Artifact, Golden, Labels, Manifest, Network, Preprocess, Training
from models.preprocess import SUFFIXES, preprocess
from models.store import Bundle, write_bundle
from training.config import TrainConfig
from training.data import bundles
from training.data.pipeline import evaluation_spec, open_split
from training.deploy.exporters import (
    EXPORTERS,
    FP32_TOLERANCE,
    INPUT,
    OUTPUT,
    compute_logits,
    export_explained,
    export_mindir,
)
from training.deploy.versions import check_new
from training.errors import DataError, TrainingError
from training.network.repvgg import RepVGG
from training.run.bundled.networks import deploy_network
from training.run.checkpoints.about import framework
from training.run.checkpoints.commit import git_commit
from training.run.checkpoints.trained import Trained
from training.run.evaluation import evaluate_images, evaluate_labels
from training.storage.files import write_whole

SAMPLES = Path(__file__).parents[2] / "models" / "samples"


def export_bundle(
    config: TrainConfig, pretrained: Path, folder: Path, *, golden: Path | None, recipe: Path | None
) -> Bundle:
    """Evaluate the checkpoint `pretrained` and export it as the new bundle `folder`. Raises TrainingError."""
    check_new(folder)  # before the evaluation, which may take long
    trained = Trained.open(config, pretrained)
    config, validation = trained.config, open_split(trained.config, "val")
    trained.check_classes(validation)
    network = trained.network(deploy=True)
    thresholds, precisions = None, None
    if config.labels == "multi":
        found = evaluate_labels(network, validation, config)
        top1, top5, thresholds = found.hits(1), found.hits(5), found.thresholds
        precisions = found.average_precisions(validation.classes)
    else:
        _, top1, top5 = evaluate_images(network, validation, config)
    training = Training(
        dataset=config.dataset_title,
        evaluated_on=f"{config.dataset_title}, val split, {len(validation)} images",
        recipe=recipe.name if recipe else "command line",
        epochs=config.epochs,
        top1=top1,
        top5=top5,
        framework=framework(),
        git_commit=git_commit(),
        licence=config.licence,
        average_precision=precisions,
    )
    spec, classes = evaluation_spec(config), validation.classes
    return publish(network, config.arch, folder, spec, classes, training, golden=golden, thresholds=thresholds)


def export_files(
    config: TrainConfig, pretrained: Path, formats: Sequence[str], folder: Path, *, golden: Path | None
) -> list[Path]:
    """Export the checkpoint or bundle `pretrained` as <arch>.<format> in `folder` for each of `formats`, keys of
    EXPORTERS.

    This needs no data set: the logits are compared on the images of `golden` [default: the drawn samples], those of a
    bundle also with its golden ones. Raises TrainingError.
    """
    arch, network, spec = _pretrained(config, pretrained)
    tensors = preprocess_images(read_images(golden or SAMPLES), spec)
    logits = compute_logits(network, tensors)
    contents = {folder / f"{arch}.{name.lower()}": EXPORTERS[name](network, tensors, logits) for name in formats}
    for path, content in contents.items():
        write_whole(path, content)
    return list(contents)


def _pretrained(config: TrainConfig, pretrained: Path) -> tuple[str, RepVGG, Preprocess]:
    """-> architecture, deploy network, preprocessing. Raises TrainingError."""
    if bundle := bundles.find(pretrained):
        followed, _ = bundles.follow(config)
        return followed.arch, deploy_network(bundle), bundle.manifest.preprocess
    trained = Trained.open(config, pretrained)
    return trained.config.arch, trained.network(deploy=True), evaluation_spec(trained.config)


def publish(
    network: nn.Cell,
    arch: str,
    folder: Path,
    spec: Preprocess,
    labels: Sequence[str],
    training: Training,
    *,
    golden: Path | None,
    thresholds: list[float] | None = None,
) -> Bundle:
    """Write a deploy network as the new bundle `folder`, with the images of `golden` [default: the drawn samples].

    `thresholds`: of each label, where several may apply. Raises TrainingError.
    """
    name, version = check_new(folder)
    images = read_images(golden or SAMPLES)
    tensors = preprocess_images(images, spec)
    logits = compute_logits(network, tensors)
    files = {
        "labels.txt": "".join(f"{label}\n" for label in labels).encode(),
        "model.mindir": export_mindir(network, tensors, logits),
        **pack(images, logits.tolist()),
    }
    explained = export_explained(network, tensors, logits)
    onnx, more = explained.of(_artifact("onnx", b""))
    files |= more
    manifest = Manifest(
        name=name,
        version=version,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        network=_network(network, arch, len(labels)),
        preprocess=spec,
        labels=Labels(
            file="labels.txt",
            sha256=_sha256(files["labels.txt"]),
            multi=thresholds is not None,
            thresholds=thresholds,
        ),
        artifacts=[onnx, _artifact("mindir", files["model.mindir"])],
        golden=Golden(file=GOLDEN_FILE, sha256=_sha256(files[GOLDEN_FILE]), tolerance={"fp32": FP32_TOLERANCE}),
        training=training,
    )
    try:
        return write_bundle(folder, manifest, files)
    except BundleError as error:
        raise TrainingError(str(error)) from error


def _network(network: nn.Cell, arch: str, num_classes: int) -> Network:
    parameters = sum(parameter.size for parameter in network.trainable_params())
    return Network(variant=arch, num_classes=num_classes, parameters=parameters)


def _artifact(file_format: Literal["onnx", "mindir"], content: bytes) -> Artifact:
    return Artifact(
        format=file_format,
        precision="fp32",
        file=f"model.{file_format}",
        sha256=_sha256(content),
        input=INPUT,
        output=OUTPUT,
        batch="dynamic",
    )


def read_images(folder: Path) -> dict[str, bytes]:
    """File name -> content, in order of names. Raises DataError if there are no images."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder} holds no images for the golden check")
    return {path.name: path.read_bytes() for path in paths}


def preprocess_images(images: Mapping[str, bytes], spec: Preprocess) -> NDArray[np.float32]:
    """-> float32 (N, 3, S, S). Raises DataError that names the image."""
    tensors = []
    for name, encoded in images.items():
        try:
            tensors.append(preprocess(encoded, spec))
        except ImageError as error:
            raise DataError(f"golden image {name}: {error.detail}") from error
    return np.stack(tensors)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
