"""What is specific to MindSpore; what all engines have in common is in test_every_engine.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import service

ROOT = Path(service.__file__).parents[1]
PROGRAM = """
import numpy as np
from models.store import open_bundle
from service.engines.loading import load_engine

engine = load_engine("mindspore", open_bundle("repvgg-tiny-cifar10"), "fp32", threads=1)
assert engine.infer(np.zeros((3, 3, 32, 32), np.float32)).shape == (3, 10)
load_engine("mindspore", open_bundle("repvgg-tiny-cifar10"), "fp32", threads=2).close()
engine.close()
try:
    engine.infer(np.zeros((1, 3, 32, 32), np.float32))
except RuntimeError as error:
    print(error)
"""


def test_it_prints_nothing_and_leaves_no_file_where_it_runs(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in ("DNNL_MAX_CPU_ISA", "GLOG_v")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "the engine is closed\n", "")
    assert list(tmp_path.iterdir()) == []
