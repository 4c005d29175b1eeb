"""What holds for every engine of the table: one row each."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from models.store import Bundle, open_bundle
from service.engines import ENGINES, load_engine
from service.errors import ConfigError, EngineUnavailable

# name, and the interpreter of its own process: none, this one or that of MindSpore Lite.
ROWS = [
    *[(name, "") for name in ("auto", "onnxruntime", "fake")],
    *[(name, sys.executable) for name in ("auto", "fake")],
    *[(name, "lite") for name in ("mindspore-lite", "fake")],
]


@pytest.fixture
def bundle_and_python(request: pytest.FixtureRequest, python: str) -> tuple[Bundle, str]:
    """The tiny bundle for the row's interpreter, and its path."""
    if python != "lite":
        return open_bundle(request.getfixturevalue("tiny_bundle")), python
    return open_bundle(request.getfixturevalue("lite_bundle")), str(request.getfixturevalue("lite_python"))


def test_every_engine_has_a_row() -> None:
    assert {name for name, _ in ROWS} == {"auto", *ENGINES}


@pytest.mark.parametrize(("name", "python"), ROWS)
def test_it_answers_with_the_shapes_of_the_bundle(bundle_and_python: tuple[Bundle, str], name: str) -> None:
    bundle, python = bundle_and_python
    engine = load_engine(name, bundle, "auto", threads=1, python=python)
    assert engine.name in ENGINES
    assert engine.precision == "fp32"
    assert (engine.input_size, engine.num_classes) == (32, 10)
    for images in (1, 2, 5):
        logits = engine.infer(np.zeros((images, 3, 32, 32), np.float32))
        assert (logits.shape, logits.dtype) == ((images, 10), np.float32)
        assert np.isfinite(logits).all()
    engine.close()


@pytest.mark.parametrize(("name", "python"), ROWS)
def test_an_image_gets_the_same_logits_in_every_batch(bundle_and_python: tuple[Bundle, str], name: str) -> None:
    bundle, python = bundle_and_python
    engine = load_engine(name, bundle, "auto", threads=1, python=python)
    images = np.random.default_rng(0).normal(size=(6, 3, 32, 32)).astype(np.float32)
    alone = np.concatenate([engine.infer(image[None]) for image in images])
    np.testing.assert_allclose(engine.infer(images), alone, rtol=1e-5, atol=1e-5)
    assert len(np.unique(alone, axis=0)) == len(images)
    engine.close()


def test_an_unknown_name_lists_the_known_ones(tiny_bundle: Path) -> None:
    with pytest.raises(
        ConfigError, match="there is no engine 'tensorrt'; known: auto, onnxruntime, mindspore-lite, fake"
    ):
        load_engine("tensorrt", open_bundle(tiny_bundle), "auto", threads=1)


def test_a_runtime_that_is_not_installed_names_the_extra(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "onnxruntime", "service.engines.no_such_runtime:Engine")
    with pytest.raises(EngineUnavailable, match=r"pip install 'repvgg\[onnx\]'"):
        load_engine("onnxruntime", open_bundle(tiny_bundle), "auto", threads=1)


def test_mindspore_lite_in_this_interpreter_names_the_one_that_can_have_it(tiny_bundle: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"setup\.py lite, then give --engine-python \.venv-lite/bin/python"):
        load_engine("mindspore-lite", open_bundle(tiny_bundle), "auto", threads=1)


def test_importing_the_table_imports_no_runtime() -> None:
    import subprocess

    code = "import sys, service.engines, service.classifier; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
