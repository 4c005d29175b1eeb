"""Local files -> a bundle, without a training framework: `repvgg convert`, and the last step of `pull https://`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hub.addresses import How
from hub.conversion import onnx_classifier, repvgg
from hub.conversion.classifier import Classifier
from hub.errors import WrongRequest
from models.store import sha256
from weights.labels import IMAGENET_LABELS, read_labels
from weights.sources import SOURCES, published_preprocess

FORMATS = ("onnx", *(name for name in SOURCES if name not in ("own", "modelzoo", "mindcv")))


def classifier(path: Path, how: How, say: Callable[[str], None]) -> Classifier:
    """Raises HubError and WeightsError."""
    kind = how.format or ("onnx" if path.suffix == ".onnx" else None)
    if kind not in FORMATS:
        raise WrongRequest(f"--from {kind} is not known: say who wrote {path.name}, one of {', '.join(FORMATS)}")
    recipe = f"{path.name}, sha256 {sha256(path)}"
    if kind == "onnx":
        if not (how.preprocess and how.labels):
            raise WrongRequest("an ONNX file states no preprocessing and no labels: give --preprocess and --labels")
        labels, dataset = _labels(how.labels)
        spec = onnx_classifier.preprocessing(how.preprocess)
        return onnx_classifier.classifier(
            path, spec, labels, variant=path.stem, recipe=recipe, say=say, output=how.output, dataset=dataset
        )
    if not how.arch:
        raise WrongRequest("--arch names the variant of these weights, such as RepVGG-A0")
    labels, dataset = _labels(how.labels or "imagenet")
    published = published_preprocess(SOURCES[kind], how.arch)
    spec = onnx_classifier.preprocessing(how.preprocess) if how.preprocess else published
    return repvgg.classifier(
        path, kind, how.arch, spec, labels, dataset=dataset, recipe=recipe, say=say, averaged=how.averaged
    )


def _labels(given: str) -> tuple[list[str], str]:
    if given == "imagenet":
        return read_labels(IMAGENET_LABELS), "ImageNet-1k"
    return read_labels(Path(given)), f"the classes of {Path(given).name}"
