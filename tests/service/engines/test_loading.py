"""Opening engines by their names, and the artifacts that they serve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import BundleError
from models.store import Bundle, open_bundle
from service.engine_table import ENGINES
from service.engines.artifacts import choose_artifact, has_artifact
from service.engines.loading import is_installed, load_engine
from service.errors import ConfigError, EngineUnavailable


def test_an_unknown_name_lists_the_known_ones(tiny_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="there is no engine 'tensorrt'; known: auto, onnxruntime, openvino, "):
        load_engine("tensorrt", open_bundle(tiny_bundle), "fp32", threads=1)


def test_a_runtime_that_is_not_installed_names_the_extra(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(ENGINES["onnxruntime"], location="service.engines.no_such_runtime:Engine")
    monkeypatch.setitem(ENGINES, "onnxruntime", broken)
    with pytest.raises(EngineUnavailable, match=r"pip install 'repvgg\[onnx\]'"):
        load_engine("onnxruntime", open_bundle(tiny_bundle), "fp32", threads=1)


def test_mindspore_lite_in_this_interpreter_names_the_one_that_supports_it(tiny_bundle: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"setup\.py lite, then give --engine-python \.venv-lite/bin/python"):
        load_engine("mindspore-lite", open_bundle(tiny_bundle), "fp32", threads=1)


def test_whether_a_runtime_is_installed_is_known_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "openvino", replace(ENGINES["openvino"], package="no_such_package"))
    assert [is_installed(name) for name in ("fake", "onnxruntime", "openvino")] == [True, True, False]


def test_an_unsupported_precision_lists_the_supported_ones(full_bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="onnxruntime does not support precision bf16; it supports: fp32, fp16, int8"):
        choose_artifact("onnxruntime", full_bundle, "bf16")


def test_a_precision_is_computed_from_the_artifact_named_in_the_table(full_bundle: Bundle, tiny_bundle: Path) -> None:
    assert choose_artifact("openvino", full_bundle, "bf16").precision == "fp32"
    assert choose_artifact("openvino", full_bundle, "int8").precision == "int8"
    assert choose_artifact("mindspore", full_bundle, "fp32").format == "mindir"
    assert not has_artifact("openvino", open_bundle(tiny_bundle), "int8")
    with pytest.raises(BundleError, match="no mindir artifact of precision fp32; it has: onnx fp32"):
        choose_artifact("mindspore", open_bundle(tiny_bundle), "fp32")
