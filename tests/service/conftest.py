"""The shipped network in every precision."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from models import golden
from models.manifest import Accuracy, Artifact
from models.store import Bundle, open_bundle, write_bundle

# Measured: int8 by the calibration below is 0.25 off the golden logits, bf16 0.04, fp16 0.006.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.1, "int8": 0.5}


def quantised(model: onnx.ModelProto, images: np.ndarray, file: Path) -> bytes:
    """QDQ, int8 weights per channel, calibrated on `images` (N, 3, S, S)."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[dict[str, np.ndarray]] = iter([{"image": image[None]} for image in images])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    logging.getLogger().disabled = True  # it recommends a preparation that this network does not need
    try:
        quantize_static(
            onnx.version_converter.convert_version(model, 17),  # per channel scales are of opset 13
            str(file),
            Reader(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.getLogger().disabled = False
    return file.read_bytes()


@pytest.fixture(scope="session")
def full_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle with artifacts in fp16 and int8, and a manifest that vouches for all precisions."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    shipped = open_bundle("repvgg-tiny-cifar10/1")
    model = onnx.load(str(shipped.folder / "model.onnx"))
    images, _ = golden.load(shipped)
    new = {
        "int8": quantised(model, images, tmp_path_factory.mktemp("quantised") / "int8.onnx"),
        "fp16": convert_float_to_float16(model, keep_io_types=True).SerializeToString(),
    }
    artifacts = [
        Artifact(
            format="onnx",
            precision=precision,
            file=f"{precision}.onnx",
            sha256=hashlib.sha256(content).hexdigest(),
            input="image",
            output="logits",
            batch="dynamic",
        )
        for precision, content in new.items()
    ]
    manifest = shipped.manifest.model_copy(
        update={
            "artifacts": [*shipped.manifest.artifacts, *artifacts],
            "golden": shipped.manifest.golden.model_copy(update={"tolerance": TOLERANCE}),
            "accuracy": Accuracy(top1={"fp32": 0.8566, "int8": 0.8540}, max_top1_drop=0.005),
        }
    )
    files: dict[str, bytes | Path] = {f"{precision}.onnx": content for precision, content in new.items()}
    for path in shipped.folder.rglob("*"):
        if path.is_file() and path.name != "manifest.json":
            files[str(path.relative_to(shipped.folder))] = path
    return write_bundle(tmp_path_factory.mktemp("store") / "full" / "1", manifest, files)
