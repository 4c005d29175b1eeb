from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from models.errors import BundleError
from models.store import open_bundle
from service.engines.hosted.child import ParsedBundle

ROOT = Path(__file__).parents[4]
# Files that run in the interpreter of an engine's process, or of MindSpore Lite.
IN_PYTHON_37 = [
    "models/artifacts.py",
    "models/errors.py",
    "service/errors.py",
    "service/engine_table.py",
    "service/engines/artifacts.py",
    "service/engines/runtimes/fake.py",
    "service/engines/hosted/child.py",
    "service/engines/hosted/protocol.py",
    "service/engines/runtimes/concurrency.py",
    "service/engines/runtimes/mindspore_lite.py",
    "service/engines/runtimes/onnxruntime.py",
    "training/deploy/lite_converter.py",
]


@pytest.mark.parametrize("file", IN_PYTHON_37)
def test_the_syntax_is_that_of_python_37(file: str) -> None:
    ast.parse((ROOT / file).read_text(), feature_version=(3, 7))


def test_python_37_compiles_every_file(lite_python: Path) -> None:
    program = "import sys; [compile(open(file).read(), file, 'exec') for file in sys.argv[1:]]"
    subprocess.run([lite_python, "-c", program, *IN_PYTHON_37], cwd=ROOT, check=True)


def test_a_parsed_bundle_looks_like_a_bundle_to_an_engine(tiny_bundle: Path) -> None:
    bundle, parsed = open_bundle(tiny_bundle), ParsedBundle(str(tiny_bundle))
    assert parsed.folder == bundle.folder
    assert parsed.manifest.preprocess.input_size == bundle.manifest.preprocess.input_size
    assert parsed.manifest.network.num_classes == bundle.manifest.network.num_classes
    assert parsed.manifest.training.framework == bundle.manifest.training.framework
    mine, theirs = bundle.artifact(("mindir", "onnx"), "fp32"), parsed.artifact(("mindir", "onnx"), "fp32")
    assert vars(theirs) == mine.model_dump()  # what is not there is not written
    assert parsed.path(theirs) == bundle.path(mine)
    with pytest.raises(BundleError) as of_bundle:
        bundle.artifact(("mindir",), "int8")
    with pytest.raises(BundleError) as of_parsed:
        parsed.artifact(("mindir",), "int8")
    assert str(of_bundle.value) == str(of_parsed.value)
