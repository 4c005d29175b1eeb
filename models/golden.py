"""The golden check: a few images and the logits that the training framework computed for them prove an engine correct.

1. an engine fails if its logits differ by more than the manifest's tolerance, are NaN, or have another shape;
2. the images have checksums too: a golden image that changed is a BundleError, not a failed engine;
3. the images take the same path as a client's: models.preprocess, from the encoded bytes.

`golden/golden.json` holds `{"images": [{"file", "sha256", "logits"}]}`; the image files are next to it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from models.errors import BundleError, ImageError
from models.fields import FileName, Sha256, Strict
from models.manifest import Precision, Preprocess, problems
from models.preprocess import preprocess
from models.store import Bundle, read, verify

FILE = "golden/golden.json"

Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class GoldenImage(Strict):
    """`file` is relative to the folder of golden.json."""

    file: FileName
    sha256: Sha256
    logits: list[float]


class GoldenSet(Strict):
    images: list[GoldenImage]


@dataclass(frozen=True)
class GoldenReport:
    """`max_delta`: largest |logit - expected|, infinite if a logit is missing or not finite. `top1_agreement`: fraction
    of the images whose largest logit is the expected class."""

    max_delta: float
    tolerance: float
    top1_agreement: float

    @property
    def ok(self) -> bool:
        return self.max_delta <= self.tolerance


def pack(images: Mapping[str, bytes], logits: Sequence[Sequence[float]]) -> dict[str, bytes]:
    """Named encoded images and their logits -> the files of the bundle's golden folder.

    Raises ValueError for a name outside the folder and for logits that are not finite.
    """
    entries = [
        GoldenImage(file=name, sha256=hashlib.sha256(encoded).hexdigest(), logits=[float(logit) for logit in row])
        for (name, encoded), row in zip(images.items(), logits, strict=True)
    ]
    folder = PurePosixPath(FILE).parent
    files = {str(folder / name): encoded for name, encoded in images.items()}
    return files | {FILE: (GoldenSet(images=entries).model_dump_json(indent=1) + "\n").encode()}


def load(bundle: Bundle) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """-> tensors float32 (N, 3, S, S) and expected logits float32 (N, K). Raises BundleError."""
    path = bundle.folder / bundle.manifest.golden.file
    try:
        golden = GoldenSet.model_validate_json(read(path))
    except ValidationError as error:
        raise BundleError(f"{path} is not valid: {problems(error)}") from error
    classes = bundle.manifest.network.num_classes
    if not golden.images or any(len(image.logits) != classes for image in golden.images):
        raise BundleError(f"{path} must hold at least one image, each with {classes} logits")
    tensors = [
        _tensor(verify(path.parent, image.file, image.sha256), bundle.manifest.preprocess) for image in golden.images
    ]
    return np.stack(tensors), np.asarray([image.logits for image in golden.images], np.float32)


def _tensor(path: Path, spec: Preprocess) -> NDArray[np.float32]:
    try:
        return preprocess(read(path), spec)
    except ImageError as error:
        raise BundleError(f"{path} is not a usable golden image: {error}") from error


def check(bundle: Bundle, precision: Precision, infer: Infer) -> GoldenReport:
    """Run the golden images through `infer` one by one and compare with the expected logits.

    Raises BundleError if the manifest gives no tolerance for `precision`.
    """
    tolerance = bundle.manifest.golden.tolerance.get(precision)
    if tolerance is None:
        known = ", ".join(bundle.manifest.golden.tolerance)
        raise BundleError(
            f"{bundle.folder}: the manifest gives no golden tolerance for precision {precision}, only for: {known}"
        )
    tensors, expected = load(bundle)
    answers = [(infer(tensor[None]), logits[None]) for tensor, logits in zip(tensors, expected, strict=True)]
    same = [found.shape == logits.shape and found.argmax() == logits.argmax() for found, logits in answers]
    return GoldenReport(max(_delta(*answer) for answer in answers), tolerance, float(np.mean(same)))


def _delta(logits: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    if logits.shape != expected.shape or not np.isfinite(logits).all():
        return math.inf
    return float(np.max(np.abs(logits - expected)))
