"""Weights from other projects -> a model bundle, or a checkpoint to train on from.

1. an error names every missing, unused and misshapen weight, and then nothing is written;
2. the bundle's preprocessing is the one with which the source measured its published accuracy;
3. the manifest leaves top-1 and top-5 empty, because a published figure was not measured here;
4. a checkpoint has the train form: weights that are already fused are rejected.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from models.manifest import Preprocess, Training
from models.store import Bundle, sha256
from training.data.names import listed
from training.deploy import bundle
from training.errors import CheckpointError, ConfigError
from training.network import ema, repvgg
from training.run.checkpoints import about, checkpoint
from training.run.checkpoints.about import About
from training.run.checkpoints.commit import git_commit
from weights import readers, sources
from weights.errors import CheckpointError as UnreadableWeights
from weights.labels import IMAGENET_LABELS, read_labels
from weights.sources import SOURCES, Source
from weights.variants import VARIANTS, Variant

Weights = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Found:
    """What was read from `file`: float32 `weights` under our names, what a checkpoint of ours says of itself, and lines
    about what was left out."""

    file: Path
    weights: Weights
    about: About | None
    remarks: list[str]


def write_bundle(
    found: Found,
    source: Source,
    arch: str,
    folder: Path,
    labels: list[str],
    spec: Preprocess,
    *,
    dataset: str,
    golden: Path | None,
) -> Bundle:
    """Fuse the weights and write them as the new bundle `folder`. Raises TrainingError."""
    file = found.file
    network = build_network(found.weights, VARIANTS[arch], len(labels), deploy=True, file=file)
    print(f"{file} fits; exporting it and comparing the logits now, which takes minutes for the largest networks")
    training = Training(
        dataset=dataset,
        evaluated_on="not measured here",
        recipe=f"weights of {source.title}: {file.name}, sha256 {sha256(file)}",
        epochs=0,
        framework=about.framework(),
        git_commit=git_commit(),
        licence=found.about.recipe.get("licence") if found.about else None,
    )
    return bundle.publish(network, arch, folder, spec, labels, training, golden=golden)


def write_checkpoint(found: Found, arch: str, path: Path, labels: list[str], spec: Preprocess) -> None:
    """Write the weights as the new checkpoint `path`. Raises TrainingError."""
    network = build_network(found.weights, VARIANTS[arch], len(labels), deploy=False, file=found.file)
    checkpoint.save(path, repvgg.weights(network), about.of_weights(labels, arch, spec).entry)


def write_backbone(found: Found, arch: str, path: Path, spec: Preprocess) -> None:
    """Write the weights without a classifier, whether there is one or not. Raises TrainingError."""
    parameters = repvgg.weights(repvgg.RepVGG(VARIANTS[arch], 1))
    fresh = checkpoint.start_from(parameters, found.weights, reset_classifier=True, source=found.file)
    backbone = {name: parameter for name, parameter in parameters.items() if name not in fresh}
    checkpoint.save(path, backbone, about.of_weights((), arch, spec).entry)


def arch_of(found: Found) -> str:
    """The variant that a checkpoint of ours names. Raises ConfigError."""
    arch = found.about.recipe.get("arch") if found.about else None
    if not isinstance(arch, str):
        raise ConfigError(f"{found.file} does not say which variant it is of: give --arch NAME")
    sources.check_arch(arch)
    return arch


def labels_of(found: Found, given: list[str] | None, name: str | None) -> tuple[list[str], str]:
    """The labels that are given, else the checkpoint's own, else ImageNet's -> labels, and what they are called."""
    own = list(found.about.classes) if found.about else []
    if given is None:
        return (own, "the classes of its checkpoint") if own else (read_labels(IMAGENET_LABELS), "ImageNet-1k")
    if own and given != own:
        print(f"{found.file} names its classes {listed(own)}; --labels {name} takes their place")
    return given, "ImageNet-1k" if name == "imagenet" else f"the classes of {Path(str(name)).name}"


def spec_of(found: Found, source: Source, arch: str) -> Preprocess:
    """The preprocessing that a checkpoint of ours states, else the source's. Raises UnknownVariant."""
    if found.about is None:
        return sources.published_preprocess(source, arch)
    if found.about.recipe.get("arch", arch) != arch:
        raise CheckpointError(f"{found.file} is a {found.about.recipe['arch']}, not a {arch}")
    return Preprocess.model_validate(dict(found.about.preprocess), strict=False)


def read_weights(file: Path, source: Source, *, averaged: bool = False) -> Found:
    """Read the weights, with `averaged` their average, which must be there. Raises CheckpointError."""
    try:
        entries, said, remarks = _read(file, source, averaged)
        sources.check_names(entries, source)
        weights, ignored = sources.translate(entries, source)
    except UnreadableWeights as error:
        told = str(error)
        raise CheckpointError(told if str(file) in told else f"{file}: {told}") from error
    if ignored:
        remarks.append(f"ignored {len(ignored)} entries that are not weights of the network, such as {ignored[0]}")
    return Found(file, weights, said, remarks)


def _read(file: Path, source: Source, averaged: bool) -> tuple[Weights, About | None, list[str]]:
    if file.suffix != ".ckpt":
        contents = readers.read(file, averaged=averaged)
        return contents.arrays, None, contents.remarks
    found = checkpoint.read(file)
    said = about.parse(found, file)
    averages = source is SOURCES["own"] and any(name.startswith(ema.PREFIX) for name in found)
    if averaged and not averages:
        raise CheckpointError(f"{file} holds no averaged weights that can be used")
    if averages:  # as in evaluation and export
        return checkpoint.network_weights(found), said, ["took the averaged weights"]
    return {name: array for name, array in found.items() if array.dtype.kind in "fiub"}, said, []


def build_network(weights: Weights, variant: Variant, num_classes: int, *, deploy: bool, file: Path) -> repvgg.RepVGG:
    """Weights under our names -> network: fused with `deploy`, else in the train form.

    Raises CheckpointError that names what does not fit, and ConfigError for a different number of classes.
    """
    if weights and "classifier.weight" not in weights:
        raise CheckpointError(
            f"{file} has no classifier: --checkpoint FILE.ckpt --reset_classifier makes a checkpoint to train one on"
        )
    if "classifier.bias" in weights and len(weights["classifier.bias"]) != num_classes:
        classes = len(weights["classifier.bias"])
        raise ConfigError(f"{file} has {classes} classes, but there are {num_classes} labels: give --labels FILE")
    network = checkpoint.build_network(weights, variant, num_classes, deploy=deploy, source=file)
    if not (deploy or checkpoint.is_train_form(weights)):
        raise CheckpointError(
            f"{file} is fused and has no branches to train: --checkpoint needs the weights of the train form; "
            "these weights can only become a bundle (--out), from which training.train starts too"
        )
    return network


def recipe_keys(spec: Preprocess) -> str:
    """The recipe keys for this preprocessing; mean and std are the same for every source."""
    return f"image_size: {spec.input_size}, interpolation: {spec.interpolation}, crop_pct: {spec.crop_pct}"
