"""What precisions below fp32 need of a bundle: calibration batches, and artifacts with golden tolerances for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from models import golden
from models.errors import ImageError
from models.explanation.features import explained
from models.manifest import Artifact, Pixels, Precision, Preprocess
from models.preprocess import preprocess, read_file
from models.store import Bundle
from training.errors import DataError

BATCH_SIZE = 32
FILES: dict[Precision, str] = {"fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}  # bf16 has none
# Other engines round in other places, so their golden logits may differ by this many times the difference measured here
# (OpenVINO: 1.2 times in bf16), and in int8 by at least this share of the largest logit (OpenVINO: 3.7 times the
# measured difference on a network of two layers). Top-1 is what proves that the network is right.
GOLDEN_MARGIN = 3.0
GOLDEN_SHARE_INT8 = 0.1


def equal_batches(paths: Sequence[Path], spec: Preprocess) -> Iterator[NDArray[np.float32]]:
    """float32 (n, 3, S, S), all of the same n, as ONNX Runtime requires; what is left over is dropped."""
    size = min(BATCH_SIZE, len(paths))
    for start in range(0, len(paths) - size + 1, size):
        yield np.stack([read_tensor(path, spec) for path in paths[start : start + size]])


def artifacts_of(
    bundle: Bundle, models: Mapping[Precision, onnx.ModelProto]
) -> tuple[list[Artifact], dict[str, bytes | Path]]:
    """The artifacts of the precisions that have a file, and these files; with features if the fp32 one has them."""
    source = bundle.artifact(("onnx",), "fp32")
    artifacts: list[Artifact] = []
    files: dict[str, bytes | Path] = {}
    for precision, file in FILES.items():
        if precision in models:
            encoded = models[precision].SerializeToString()
            digest = hashlib.sha256(encoded).hexdigest()
            changed = {"precision": precision, "file": file, "sha256": digest, "features": None}
            artifact, content = source.model_copy(update=changed), {file: encoded}
            if source.features and (found := explained(models[precision])):
                artifact, content = found.of(artifact)
            artifacts.append(artifact)
            files |= content
    return artifacts, files


def tolerances_of(bundle: Bundle, deltas: Mapping[Precision, float]) -> dict[str, float]:
    """The golden tolerance of every measured precision except fp32, which keeps its own."""
    tolerance: dict[str, float] = {name: GOLDEN_MARGIN * delta for name, delta in deltas.items() if name != "fp32"}
    if "int8" in tolerance:
        largest_logit = float(np.abs(golden.load(bundle)[1]).max())
        tolerance["int8"] = max(tolerance["int8"], GOLDEN_SHARE_INT8 * largest_logit)
    return tolerance


def read_tensor(path: Path, spec: Preprocess, pixels: Pixels = "exact") -> NDArray[np.float32]:
    """An image file -> float32 (3, S, S). Raises DataError."""
    try:
        return preprocess(read_file(path), spec, pixels=pixels)
    except ImageError as error:
        raise DataError(f"{path}: {error.detail}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
