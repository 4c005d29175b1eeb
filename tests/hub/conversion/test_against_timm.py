"""What `repvgg pull` makes of timm's networks, compared with timm itself in an environment of its own.

1. the tensor that a photo becomes is timm's to 1e-3 of a standard deviation, whatever the recipe says of size and crop;
2. the logits are timm's to 1e-4 of their standard deviation, for each kind of block.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from models.preprocess import preprocess
from tests.hub.conftest import Pull
from tests.hub.conversion import timm_truth_cases
from tests.hub.hub_server import Repo, Server

ROOT = Path(__file__).parents[3]
PYTHON = Path(os.environ.get("TIMM_PYTHON") or ROOT / ".venv-timm" / "bin" / "python")
PHOTOS = sorted((ROOT / "models" / "samples").glob("*.jpg"))[:3]
CASES = timm_truth_cases.CASES


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what timm wrote and computed."""
    if not PYTHON.exists():
        pytest.skip("timm is not here: `python3 scripts/setup.py timm` installs it with PyTorch (4 GB)")
    folder = tmp_path_factory.mktemp("timm")
    (folder / "cases.json").write_text(json.dumps(CASES))
    argv = [PYTHON, Path(__file__).with_name("timm_truth.py"), folder, *PHOTOS]
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", CASES)
def test_tensors_and_logits_are_those_of_timm(name: str, truth: Path, server: Server, pull: Pull) -> None:
    source = f"timm/{name}"
    server.repos[source] = Repo({path.name: path.read_bytes() for path in (truth / name).iterdir()})
    bundle = pull(f"hf://{source}")
    expected = np.load(truth / f"{name}.npz")
    spec = bundle.manifest.preprocess
    tensors = np.stack([preprocess(photo.read_bytes(), spec) for photo in PHOTOS])
    assert tensors.shape == expected["tensors"].shape
    assert np.abs(tensors - expected["tensors"]).max() <= 1e-3
    artifact = bundle.artifact(["onnx"], "fp32")
    session: Any = onnxruntime.InferenceSession(bundle.path(artifact), providers=["CPUExecutionProvider"])
    (logits,) = session.run([artifact.output], {artifact.input: expected["tensors"]})
    assert np.abs(logits - expected["logits"]).max() <= 1e-4 * expected["logits"].std()
