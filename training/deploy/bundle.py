"""Checkpoint -> model bundle: fused, exported to every format, with labels and golden logits of this framework.

`write_files` is the export alone.

1. what is exported is always the fused network;
2. an artifact that does not give the framework's logits is not written;
3. top-1 and top-5 in the manifest are those of the fused network on every image of the val split;
4. a file that existed before is replaced as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import onnx
from mindspore import nn
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from models.errors import BundleError, ImageError
from models.golden import FILE as GOLDEN_FILE
from models.golden import pack
from models.manifest import Artifact, Golden, Labels, Manifest, Network, Preprocess, Training
from models.preprocess import SUFFIXES, preprocess
from models.store import Bundle, write_bundle
from training.config import TrainConfig
from training.data.pipeline import evaluation_spec, open_split
from training.deploy.versions import check_new
from training.errors import DataError, TrainingError
from training.files import write_whole
from training.run.checkpoint import load_network
from training.run.loop import evaluate_on

INPUT, OUTPUT = "image", "logits"
FP32_TOLERANCE = 1e-3
SAMPLES = Path(__file__).parents[2] / "models" / "samples"


def write(config: TrainConfig, pretrained: Path, folder: Path, *, golden: Path | None, recipe: Path | None) -> Bundle:
    """Export `pretrained` into the new bundle `folder`. Raises TrainingError."""
    check_new(folder)  # before an evaluation that may take long
    validation = open_split(config, "val")
    network = load_network(pretrained, config.arch, config.num_classes, deploy=True)
    _, top1, top5 = evaluate_on(network, validation, config)
    training = Training(
        dataset=config.dataset_title,
        evaluated_on=f"{config.dataset_title}, val split, {len(validation)} images",
        recipe=recipe.name if recipe else "command line",
        epochs=config.epochs,
        top1=top1,
        top5=top5,
        framework=framework(),
        git_commit=git_commit(),
    )
    spec = evaluation_spec(config)
    return publish(network, config.arch, folder, spec, validation.classes, training, golden=golden)


def publish(
    network: nn.Cell,
    arch: str,
    folder: Path,
    spec: Preprocess,
    labels: Sequence[str],
    training: Training,
    *,
    golden: Path | None,
) -> Bundle:
    """Write a deploy network as the new bundle `folder`, with the images of `golden` [default: the drawn samples].

    Raises TrainingError.
    """
    name, version = check_new(folder)
    images = read_images(golden or SAMPLES)
    tensors = tensors_of(images, spec)
    logits = logits_of(network, tensors)
    files: dict[str, bytes] = {
        "labels.txt": "".join(f"{label}\n" for label in labels).encode(),
        "model.onnx": export_onnx(network, tensors, logits),
        "model.mindir": export_mindir(network, tensors, logits),
    }
    files |= pack(images, logits.tolist())
    manifest = Manifest(
        name=name,
        version=version,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        network=Network(
            variant=arch,
            num_classes=len(labels),
            parameters=sum(parameter.size for parameter in network.trainable_params()),
        ),
        preprocess=spec,
        labels=Labels(file="labels.txt", sha256=_sha256(files["labels.txt"])),
        artifacts=[_artifact("onnx", files), _artifact("mindir", files)],
        golden=Golden(file=GOLDEN_FILE, sha256=_sha256(files[GOLDEN_FILE]), tolerance={"fp32": FP32_TOLERANCE}),
        training=training,
    )
    try:
        return write_bundle(folder, manifest, files)
    except BundleError as error:
        raise TrainingError(str(error)) from error


def write_files(
    config: TrainConfig, pretrained: Path, formats: Sequence[str], folder: Path, *, golden: Path | None
) -> list[Path]:
    """Export `pretrained` into `folder`, as a file <arch>.<format> for each of EXPORTERS' names in `formats`.

    Needs no data set: the logits are compared on the images of `golden` [default: the drawn samples].
    Raises TrainingError.
    """
    network = load_network(pretrained, config.arch, config.num_classes, deploy=True)
    tensors = tensors_of(read_images(golden or SAMPLES), evaluation_spec(config))
    logits = logits_of(network, tensors)
    contents = {folder / f"{config.arch}.{name.lower()}": EXPORTERS[name](network, tensors, logits) for name in formats}
    for path, content in contents.items():
        write_whole(path, content)
    return list(contents)


def logits_of(network: nn.Cell, tensors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 3, S, S) -> (N, K), one image at a time, as a golden check asks for them."""
    return np.concatenate([network(ms.Tensor(tensor[None])).asnumpy() for tensor in tensors])


def export_onnx(network: nn.Cell, tensors: NDArray[np.float32], logits: NDArray[np.float32]) -> bytes:
    """The network as ONNX with a symbolic batch; `tensors` (N, 3, S, S) must give `logits` (N, K).

    Raises TrainingError if they do not, by ONNX's own reference evaluator.
    """
    axes = {INPUT: {0: "N"}, OUTPUT: {0: "N"}}
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/model.onnx"
        example, names = ms.Tensor(tensors[:1]), {"input_names": [INPUT], "output_names": [OUTPUT]}
        ms.onnx.export(network, example, file_name=file, dynamic_axes=axes, **names)
        model = onnx.load_model(file)
    # MindSpore 2.10 frees the batch of the input only; the output keeps the example's 1.
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.checker.check_model(model, full_check=True)
    found: Any = ReferenceEvaluator(model).run(None, {INPUT: tensors})
    _same_logits("ONNX", found[0], logits)
    return model.SerializeToString()  # type: ignore[no-any-return]


def export_mindir(network: nn.Cell, tensors: NDArray[np.float32], logits: NDArray[np.float32]) -> bytes:
    """The network as MINDIR with a dynamic batch; as `export_onnx`, by MindSpore's own runtime."""
    example = ms.Tensor(shape=[None, *tensors.shape[1:]], dtype=ms.float32)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/model.mindir"
        ms.export(network, example, file_name=file, file_format="MINDIR")
        found = nn.GraphCell(ms.load(file))(ms.Tensor(tensors)).asnumpy()
        content = Path(file).read_bytes()
    _same_logits("MINDIR", found, logits)
    return content


def export_air(network: nn.Cell, tensors: NDArray[np.float32], _: NDArray[np.float32]) -> bytes:
    """The network as AIR for one image; Ascend only. Not compared: MindSpore writes AIR but cannot run it."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/model.air"
        ms.export(network, ms.Tensor(tensors[:1]), file_name=file, file_format="AIR")
        return Path(file).read_bytes()


Exporter = Callable[[nn.Cell, NDArray[np.float32], NDArray[np.float32]], bytes]
EXPORTERS: dict[str, Exporter] = {"MINDIR": export_mindir, "ONNX": export_onnx, "AIR": export_air}


def _same_logits(name: str, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    delta = float(np.max(np.abs(found - expected)))
    if not delta <= FP32_TOLERANCE:  # written so that NaN is caught too
        raise TrainingError(f"the exported {name} differs from the network: greatest logit difference {delta:.3g}")


def read_images(folder: Path) -> dict[str, bytes]:
    """File name -> content, in the order of names. Raises DataError."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder} holds no image for the golden check")
    return {path.name: path.read_bytes() for path in paths}


def tensors_of(images: dict[str, bytes], spec: Preprocess) -> NDArray[np.float32]:
    """-> float32 (N, 3, S, S). Raises DataError that names the image."""
    tensors = []
    for name, encoded in images.items():
        try:
            tensors.append(preprocess(encoded, spec))
        except ImageError as error:
            raise DataError(f"golden image {name}: {error.detail}") from error
    return np.stack(tensors)


def _artifact(file_format: Any, files: dict[str, bytes]) -> Artifact:
    file = f"model.{file_format}"
    return Artifact(
        format=file_format,
        precision="fp32",
        file=file,
        sha256=_sha256(files[file]),
        input=INPUT,
        output=OUTPUT,
        batch="dynamic",
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def framework() -> str:
    return f"mindspore {ms.__version__}"


def git_commit() -> str:
    """The commit of this code, or `unknown` where it is no git checkout; an image tells it by SOURCE_COMMIT."""
    if commit := os.environ.get("SOURCE_COMMIT"):
        return commit
    command, folder = ["git", "rev-parse", "HEAD"], Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:  # no git
        return "unknown"
    return done.stdout.strip() or "unknown"
