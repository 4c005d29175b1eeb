"""The shipped network in every precision."""

from __future__ import annotations

import hashlib

import onnx
import pytest

from models import golden
from models.manifest import Accuracy
from models.store import Bundle, open_bundle
from models.versions import write_version
from training import precisions

# Wide enough for any engine; what the shipped bundle's are and how they were measured stands in training.quantize.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.1, "int8": 1.0}


@pytest.fixture(scope="session")
def full_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle with artifacts in fp16 and int8, and a manifest that vouches for all precisions."""
    shipped = open_bundle("repvgg-tiny-cifar10")
    fp32 = shipped.artifact(["onnx"], "fp32")
    model = onnx.load_model(shipped.path(fp32))
    images, _ = golden.load(shipped)
    models = {"int8": precisions.int8(model, [images], "minmax"), "fp16": precisions.fp16(model)}
    files = {f"{precision}.onnx": made.SerializeToString() for precision, made in models.items()}
    artifacts = [
        fp32.model_copy(update={"precision": name, "file": file, "sha256": hashlib.sha256(files[file]).hexdigest()})
        for name, file in (("int8", "int8.onnx"), ("fp16", "fp16.onnx"))
    ]
    accuracy = Accuracy(top1={"fp32": 0.8566, "int8": 0.8540}, max_top1_drop=0.005)
    folder = tmp_path_factory.mktemp("store") / "full" / "1"
    return write_version(shipped, folder, artifacts, files, TOLERANCE, accuracy=accuracy)
