"""Bundle -> a new bundle with more precisions: int8 and fp16 as ONNX; bf16 needs no file of its own.

1. each precision is evaluated on every image, with the same pixels as in the service;
2. a precision that loses too much top-1 is rejected and nothing is written; with `force` it is written, and the
   manifest records the loss, so that `--precision auto` never selects it;
3. the old bundle is not changed;
4. fast pixels are measured on large photos, and rejected in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from models.errors import BundleError
from models.explanation.features import without_features
from models.manifest import Accuracy, FastPixels, Precision, Preprocess
from models.preprocess import images_in
from models.store import Bundle, open_bundle
from models.versions import write_version
from training.data.datasets import ImageFolder, scan
from training.data.names import check_same_classes, normal_form
from training.deploy import precisions
from training.deploy.lower import artifacts_of, equal_batches, tolerances_of
from training.deploy.precision_loss import (
    measure_fast_pixels,
    measure_precisions,
    precision_table,
)
from training.deploy.versions import check_new
from training.errors import ConfigError, DataError, TrainingError

SAME_TOP1 = 0.001  # engines may disagree on one image in a thousand


@dataclass(frozen=True)
class Options:
    """The flags of training.quantize, except for its bundles."""

    precisions: Sequence[Precision]
    calibration: Path
    calibration_images: int
    calibration_method: str
    data: Path
    fast_pixels: Path | None
    max_top1_drop: float
    force: bool


@dataclass(frozen=True)
class Measured:
    """top-1 and the largest difference of a golden logit for each precision; fast pixels if they were measured."""

    top1: dict[Precision, float]
    deltas: dict[Precision, float]
    fast_pixels: FastPixels | None


def quantize(reference: str, out: Path, options: Options, report: Callable[[str], None]) -> Bundle:
    """Write the new bundle `out` from the bundle `reference`; `report` gets what was measured, as text.

    Raises ConfigError, DataError, and TrainingError for a precision that loses too much.
    """
    check_new(out)
    try:
        bundle = open_bundle(reference)
        images = _open_labelled(options.data, bundle)
        photos = _open_labelled(options.fast_pixels, bundle) if options.fast_pixels else None
        models = _build_models(bundle, options)
        measured = _measure(bundle, models, images, photos, report)
        if not options.force:
            _reject_losses(measured, options.max_top1_drop)
        artifacts, files = artifacts_of(bundle, models)
        accuracy = _accuracy(bundle, measured, options.max_top1_drop)
        return write_version(bundle, out, artifacts, files, tolerances_of(bundle, measured.deltas), accuracy=accuracy)
    except BundleError as error:
        raise DataError(str(error)) from error


def _open_labelled(folder: Path, bundle: Bundle) -> ImageFolder:
    """Class ids are those of the bundle, whose labels need not be in the order of the folders' names.

    Raises DataError.
    """
    if bundle.manifest.labels.multi:
        raise DataError(f"{bundle.folder} is a multi-label bundle, whose loss no folder of classes can measure")
    images, labels = scan(folder, len(bundle.labels)), tuple(map(normal_form, bundle.labels))
    check_same_classes(labels, images.classes, folder, "the bundle")
    ids = [labels.index(name) for name in images.classes]
    return replace(images, classes=labels, images=tuple((path, ids[class_id]) for path, class_id in images.images))


def _build_models(bundle: Bundle, options: Options) -> dict[Precision, onnx.ModelProto]:
    """fp32 and the requested precisions as ONNX; bf16 is emulated. Raises BundleError for a bundle without ONNX."""
    source = without_features(onnx.load_model(bundle.path(bundle.artifact(("onnx",), "fp32"))))
    batches = calibration_batches(options.calibration, options.calibration_images, bundle.manifest.preprocess)
    builders: dict[Precision, Callable[[], onnx.ModelProto]] = {
        "int8": lambda: precisions.int8(source, batches, options.calibration_method),
        "bf16": lambda: precisions.bf16_emulated(source),
        "fp16": lambda: precisions.fp16(source),
    }
    models: dict[Precision, onnx.ModelProto] = {"fp32": source}
    return models | {precision: builders[precision]() for precision in options.precisions}


def calibration_batches(folder: Path, count: int, spec: Preprocess) -> Iterator[NDArray[np.float32]]:
    """About `count` images, evenly spaced over the folder. Raises DataError, ConfigError."""
    if count < 1:
        raise ConfigError(f"--images {count}: calibration needs at least 1 image")
    paths = sorted(images_in(folder))
    if not paths:
        raise DataError(f"--calibration {folder} holds no images")
    chosen = paths[:: ceil(len(paths) / count)]
    yield from equal_batches(chosen, spec)


def _measure(
    bundle: Bundle,
    models: Mapping[Precision, onnx.ModelProto],
    images: ImageFolder,
    photos: ImageFolder | None,
    report: Callable[[str], None],
) -> Measured:
    top1, deltas = measure_precisions(models, images, bundle)
    report(precision_table(top1, deltas, bundle))
    if (known := bundle.manifest.training.top1) is not None and abs(known - top1["fp32"]) > SAME_TOP1:
        report(f"note: the manifest says {known:.2%} for fp32; was the bundle evaluated on {images.root}?")
    fast_pixels = measure_fast_pixels(bundle, photos) if photos else None
    if fast_pixels:
        report(f"fast pixels: {fast_pixels}")
    return Measured(top1, deltas, fast_pixels)


def _reject_losses(measured: Measured, max_top1_drop: float) -> None:
    """Raises TrainingError if a precision or fast pixels lose more than `max_top1_drop`."""
    if measured.fast_pixels and (doubt := measured.fast_pixels.doubt(max_top1_drop)):
        raise TrainingError(
            f"{doubt}: nothing is written; leave out --fast_pixels, or write the bundle anyway with --force"
        )
    drops = {precision: measured.top1["fp32"] - top1 for precision, top1 in measured.top1.items()}
    if too_high := [f"{precision} loses {drop:.2%}" for precision, drop in drops.items() if drop > max_top1_drop]:
        raise TrainingError(
            f"{', '.join(too_high)} of top-1, but --max_top1_drop is {max_top1_drop:.2%}: nothing is written; try "
            "another --calibrate or more --images, train the QARepVGG form, or write the bundle anyway with --force"
        )


def _accuracy(bundle: Bundle, measured: Measured, max_top1_drop: float) -> Accuracy:
    """Adds earlier measurements to the new ones, if equal top-1 of fp32 shows that they are of the same images."""
    known = bundle.manifest.accuracy
    fast_pixels = measured.fast_pixels or (known.fast_pixels if known else None)
    earlier = known.top1 if known and abs(known.top1["fp32"] - measured.top1["fp32"]) <= SAME_TOP1 else {}
    return Accuracy(top1={**earlier, **measured.top1}, max_top1_drop=max_top1_drop, fast_pixels=fast_pixels)
