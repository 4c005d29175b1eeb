"""The parts of a small valid bundle, for tests to corrupt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from models import golden
from models.manifest import Manifest
from models.store import Bundle, write_bundle

Files = dict[str, bytes]

# The same examples in every run, without a deadline, because the machine may be busy.
settings.register_profile("calm", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")

LABELS = ("cat", "dog", "ship")


def _png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def files() -> Files:
    """All files of the bundle except manifest.json; the golden logits of image i are (i, 1, 0)."""
    images = {"one.png": _png(1), "more/two.png": _png(2)}
    packed = golden.pack(images, [[index, 1.0, 0.0] for index in range(len(images))])
    return {"labels.txt": b"cat\ndog\nship\n", "model.onnx": b"weights" * 1000, **packed}


@pytest.fixture
def values(files: Files) -> dict[str, Any]:
    """The valid manifest for `files`, as JSON values that a test may corrupt."""

    def entry(name: str) -> dict[str, str]:
        return {"file": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    onnx = {"format": "onnx", "precision": "fp32", "input": "image", "output": "logits", "batch": "dynamic"}
    return {
        "schema_version": 1,
        "name": "tiny",
        "version": "1",
        "created_at": "2025-01-31T12:00:00Z",
        "network": {"variant": "A0", "num_classes": len(LABELS), "parameters": 1234},
        "preprocess": {
            "input_size": 8,
            "interpolation": "bicubic",
            "crop_pct": 0.5,
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
        "labels": entry("labels.txt"),
        "artifacts": [onnx | entry("model.onnx")],
        "golden": entry(golden.FILE) | {"tolerance": {"fp32": 0.001, "int8": 0.5}},
        "training": {
            "dataset": "none",
            "evaluated_on": "none",
            "recipe": "none",
            "epochs": 0,
            "framework": "numpy",
            "git_commit": "0" * 40,
        },
    }


@pytest.fixture
def write(values: dict[str, Any], files: Files) -> Callable[[Path], Bundle]:
    """Write `files` and the manifest `values`, as modified by the test."""
    return lambda folder: write_bundle(folder, Manifest.from_json(json.dumps(values)), files)


@pytest.fixture
def bundle(write: Callable[[Path], Bundle], tmp_path: Path) -> Bundle:
    return write(tmp_path / "store" / "tiny" / "1")
