"""Weights from other projects -> a model bundle, or a checkpoint to train on from.

1. an error names every missing, unused and misshapen weight, and then nothing is written;
2. the bundle's preprocessing is the one with which the source measured its published accuracy;
3. the manifest leaves top-1 and top-5 empty, because a published figure was not measured here;
4. a checkpoint has the train form: weights that are already fused are rejected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from models.manifest import Preprocess, Training
from models.store import Bundle, sha256
from training.deploy import bundle
from training.deploy.versions import git_commit
from training.errors import CheckpointError, ConfigError
from training.network import ema, repvgg
from training.run import checkpoint
from weights import readers, sources
from weights.errors import CheckpointError as UnreadableWeights
from weights.sources import SOURCES, Source
from weights.variants import VARIANTS, Variant

Weights = dict[str, NDArray[Any]]


def write_bundle(
    weights: Weights,
    source: Source,
    arch: str,
    folder: Path,
    labels: list[str],
    *,
    file: Path,
    dataset: str,
    golden: Path | None,
) -> Bundle:
    """Fuse weights that were read from `file` and write them as the new bundle `folder`. Raises TrainingError."""
    network = build_network(weights, VARIANTS[arch], len(labels), deploy=True, file=file)
    print(f"{file} fits; exporting it and comparing the logits now, which takes minutes for the largest networks")
    training = Training(
        dataset=dataset,
        evaluated_on="not measured here",
        recipe=f"weights of {source.title}: {file.name}, sha256 {sha256(file)}",
        epochs=0,
        framework=bundle.framework(),
        git_commit=git_commit(),
    )
    spec = sources.published_preprocess(source, arch)
    return bundle.publish(network, arch, folder, spec, labels, training, golden=golden)


def write_checkpoint(weights: Weights, arch: str, path: Path, num_classes: int, *, file: Path) -> None:
    """Write weights that were read from `file` as the new checkpoint `path`. Raises TrainingError."""
    network = build_network(weights, VARIANTS[arch], num_classes, deploy=False, file=file)
    checkpoint.save(path, repvgg.weights(network), {})


def read_weights(file: Path, source: Source) -> tuple[Weights, list[str]]:
    """-> float32 weights under our names, and the names of other entries in the file. Raises CheckpointError."""
    try:
        return sources.translate(_read(file, source), source)
    except UnreadableWeights as error:
        told = str(error)
        raise CheckpointError(told if str(file) in told else f"{file}: {told}") from error


def _read(file: Path, source: Source) -> Weights:
    if file.suffix != ".ckpt":
        return readers.read(file)
    found = checkpoint.read(file)
    averaged = source is SOURCES["own"] and any(name.startswith(ema.PREFIX) for name in found)
    return checkpoint.network_weights(found) if averaged else found  # the averages, as in evaluation and export


def build_network(weights: Weights, variant: Variant, num_classes: int, *, deploy: bool, file: Path) -> repvgg.RepVGG:
    """Weights under our names -> network: fused with `deploy`, else in the train form.

    Raises CheckpointError that names what does not fit, and ConfigError for a different number of classes.
    """
    if "classifier.bias" in weights and len(weights["classifier.bias"]) != num_classes:
        classes = len(weights["classifier.bias"])
        raise ConfigError(f"{file} has {classes} classes, but there are {num_classes} labels: give --labels FILE")
    network = checkpoint.build_network(weights, variant, num_classes, deploy=deploy, source=file)
    if not (deploy or checkpoint.is_train_form(weights)):
        raise CheckpointError(
            f"{file} is fused and has no branches to train: --checkpoint needs the weights of the train form; "
            "these weights can only become a bundle (--out)"
        )
    return network


def recipe_keys(spec: Preprocess) -> str:
    """The recipe keys for this preprocessing; mean and std are the same for every source."""
    return f"image_size: {spec.input_size}, interpolation: {spec.interpolation}, crop_pct: {spec.crop_pct}"
