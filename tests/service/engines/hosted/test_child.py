from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from models.errors import BundleError
from models.store import open_bundle
from service.engines.hosted.child import ParsedBundle, SharedTensors

ROOT = Path(__file__).parents[4]
# What runs in the interpreter of an engine's process, or of MindSpore Lite.
IN_PYTHON_37 = [
    "models/artifacts.py",
    "models/errors.py",
    "service/errors.py",
    "service/engines/capabilities.py",
    "service/engines/runtimes/fake.py",
    "service/engines/hosted/child.py",
    "service/engines/runtimes/mindspore_lite.py",
    "service/engines/runtimes/onnxruntime.py",
    "training/deploy/lite_converter.py",
]


@pytest.mark.parametrize("file", IN_PYTHON_37)
def test_it_keeps_to_the_syntax_of_python_37(file: str) -> None:
    ast.parse((ROOT / file).read_text(), feature_version=(3, 7))


def test_a_python_37_compiles_it(lite_python: Path) -> None:
    program = "import sys; [compile(open(file).read(), file, 'exec') for file in sys.argv[1:]]"
    subprocess.run([lite_python, "-c", program, *IN_PYTHON_37], cwd=ROOT, check=True)


def test_two_mappings_show_the_same_tensors_and_grow() -> None:
    file = os.memfd_create("tensors")
    ours, theirs = SharedTensors(file, 8, 5), SharedTensors(file, 8, 5)
    for images in (2, 7, 1):
        pixels, logits = ours.views(images)
        assert (pixels.shape, logits.shape) == ((images, 3, 8, 8), (images, 5))
        pixels[...] = np.random.default_rng(images).random(pixels.shape, np.float32)
        logits[...] = images
        for mine, seen in zip((pixels, logits), theirs.views(images), strict=True):
            np.testing.assert_array_equal(mine, seen)
    os.close(file)


def test_an_engine_sees_no_difference_between_the_two_kinds_of_bundle(tiny_bundle: Path) -> None:
    bundle, parsed = open_bundle(tiny_bundle), ParsedBundle(str(tiny_bundle))
    assert parsed.folder == bundle.folder
    assert parsed.manifest.preprocess.input_size == bundle.manifest.preprocess.input_size
    assert parsed.manifest.network.num_classes == bundle.manifest.network.num_classes
    assert parsed.manifest.training.framework == bundle.manifest.training.framework
    mine, theirs = bundle.artifact(("mindir", "onnx"), "fp32"), parsed.artifact(("mindir", "onnx"), "fp32")
    assert vars(theirs) == dict(mine)
    assert parsed.path(theirs) == bundle.path(mine)
    with pytest.raises(BundleError) as of_bundle:
        bundle.artifact(("mindir",), "int8")
    with pytest.raises(BundleError) as of_parsed:
        parsed.artifact(("mindir",), "int8")
    assert str(of_bundle.value) == str(of_parsed.value)
