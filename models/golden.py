"""A few images and the logits that the training framework gave for them: the proof that an engine is right.

`golden/golden.json` holds `{"images": [{"file", "sha256", "logits"}]}`; the image files lie beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from models.errors import BundleError
from models.manifest import FileName, Precision, Sha256
from models.preprocess import preprocess
from models.store import Bundle, verify

FILE = "golden/golden.json"

Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GoldenImage(_Strict):
    """`file` is relative to the folder of golden.json."""

    file: FileName
    sha256: Sha256
    logits: list[float]


class GoldenSet(_Strict):
    images: list[GoldenImage]


@dataclass(frozen=True)
class GoldenReport:
    """`max_delta`: greatest |logit - expected|; infinite where a logit is not finite."""

    max_delta: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.max_delta <= self.tolerance


def pack(images: Mapping[str, bytes], logits: Sequence[Sequence[float]]) -> dict[str, bytes]:
    """Named encoded images and their logits -> the files of the bundle's golden folder."""
    entries = [
        GoldenImage(file=name, sha256=hashlib.sha256(encoded).hexdigest(), logits=list(row))
        for (name, encoded), row in zip(images.items(), logits, strict=True)
    ]
    folder = PurePosixPath(FILE).parent
    files = {str(folder / name): encoded for name, encoded in images.items()}
    return files | {FILE: (GoldenSet(images=entries).model_dump_json(indent=1) + "\n").encode()}


def load(bundle: Bundle) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """-> tensors float32 (N, 3, S, S) and expected logits float32 (N, K). Raises BundleError."""
    path = bundle.folder / bundle.manifest.golden.file
    try:
        golden = GoldenSet.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BundleError(f"{path} is not valid: {error.errors()[0]['msg']}") from error
    classes = bundle.manifest.network.num_classes
    if not golden.images or any(len(image.logits) != classes for image in golden.images):
        raise BundleError(f"{path} must hold at least one image, each with {classes} logits")
    spec = bundle.manifest.preprocess
    tensors = [preprocess(verify(path.parent, image.file, image.sha256).read_bytes(), spec) for image in golden.images]
    return np.stack(tensors), np.asarray([image.logits for image in golden.images], np.float32)


def check(bundle: Bundle, precision: Precision, infer: Infer) -> GoldenReport:
    """Run the golden images through `infer` one by one and compare with the expected logits.

    Raises BundleError if the manifest gives no tolerance for `precision`.
    """
    tolerance = bundle.manifest.golden.tolerance.get(precision)
    if tolerance is None:
        raise BundleError(f"{bundle.folder}: the manifest gives no golden tolerance for precision {precision}")
    tensors, expected = load(bundle)
    logits = np.concatenate([infer(tensor[None]) for tensor in tensors])
    delta = float(np.max(np.abs(logits - expected))) if np.isfinite(logits).all() else float("inf")
    return GoldenReport(delta, tolerance)
