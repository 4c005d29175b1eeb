"""What lower precision and fast pixels cost in accuracy, measured with ONNX Runtime on the CPU."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from math import ceil
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from models import golden
from models.manifest import FastPixels, Precision, Preprocess
from models.store import Bundle
from training.accuracy.finite import check_finite
from training.data.datasets import ImageFolder, Images
from training.data.pipeline import evaluation_batches
from training.deploy.lower import BATCH_SIZE, read_tensor
from training.deploy.offline.engine import Engine
from training.deploy.offline.onnx_engine import open_engine
from training.errors import DataError


def measure_precisions(
    models: Mapping[Precision, onnx.ModelProto], images: Images, bundle: Bundle
) -> tuple[dict[Precision, float], dict[Precision, float]]:
    """-> top-1 on the images, and the largest difference of a golden logit, by precision. Raises TrainingError."""
    with tempfile.TemporaryDirectory() as folder:
        engines = {precision: _open(Path(folder), precision, model) for precision, model in models.items()}
        tensors, expected = golden.load(bundle)
        deltas = {precision: _golden_delta(engine, tensors, expected) for precision, engine in engines.items()}
        return _top1(engines, images, bundle.manifest.preprocess), deltas


def _open(folder: Path, precision: Precision, model: onnx.ModelProto) -> Engine:
    path = folder / f"{precision}.onnx"
    onnx.save(model, path)
    return open_engine(path, "CPU", 0)


def _golden_delta(engine: Engine, tensors: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    rows = zip(tensors, expected, strict=True)
    return float(np.max([np.abs(engine.infer(tensor[None]) - logits) for tensor, logits in rows]))


def _top1(engines: Mapping[Precision, Engine], images: Images, spec: Preprocess) -> dict[Precision, float]:
    right = Counter[Precision]()
    batches = evaluation_batches(images, spec, BATCH_SIZE, workers=2)
    for batch in tqdm(batches, "evaluate", ceil(len(images) / BATCH_SIZE), leave=False, disable=None):
        for precision, engine in engines.items():
            answers = check_finite(engine.infer(batch.images)[: batch.count]).argmax(axis=1)
            right[precision] += int((answers == batch.labels[: batch.count]).sum())
    return {precision: right[precision] / len(images) for precision in engines}


def precision_table(top1: Mapping[Precision, float], deltas: Mapping[Precision, float], bundle: Bundle) -> str:
    """One line of text per precision."""
    lines = [f"{bundle.folder}:", f"{'precision':<10} {'top-1':>8} {'lost':>8}  largest difference of a golden logit"]
    for precision, share in top1.items():
        lines.append(f"{precision:<10} {share:>8.2%} {top1['fp32'] - share:>8.2%}  {deltas[precision]:.3g}")
    return "\n".join(lines)


def measure_fast_pixels(bundle: Bundle, photos: ImageFolder) -> FastPixels:
    """Over the photos that fast pixels change. Raises TrainingError, also if there are no such photos."""
    engine = open_engine(bundle.path(bundle.artifact(("onnx",), "fp32")), "CPU", 0)
    spec, found = bundle.manifest.preprocess, []
    for path, class_id in tqdm(photos.images, "fast pixels", leave=False, disable=None):
        exact, fast = read_tensor(path, spec), read_tensor(path, spec, "fast")
        if not np.array_equal(exact, fast):
            found.append((class_id, *check_finite(engine.infer(np.stack([exact, fast]))).argmax(axis=1)))
    if not found:
        raise DataError(f"--fast_pixels {photos.root} holds no photo large enough for fast pixels to change it")
    truth, exact_answer, fast_answer = np.transpose(found)
    return FastPixels(
        images=len(found),
        agreement=float(np.mean(exact_answer == fast_answer)),
        exact_top1=float(np.mean(exact_answer == truth)),
        fast_top1=float(np.mean(fast_answer == truth)),
    )
