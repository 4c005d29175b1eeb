from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from models import golden
from models.errors import BundleError
from models.store import Bundle, open_bundle
from service.engines.runtimes.onnxruntime import PROVIDERS, OnnxRuntimeEngine
from service.errors import EngineUnavailable
from service.settings import allowed

Rebuild = Callable[..., Bundle]


def test_its_logits_equal_those_of_an_independent_reference(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    engine = OnnxRuntimeEngine.open(bundle, "fp32", threads=1)
    tensors, expected = golden.load(bundle)
    np.testing.assert_allclose(engine.infer(tensors), expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.01  # the golden images can tell networks apart


def test_telemetry_is_off() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_missing_precision_lists_the_artifacts(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="no onnx artifact of precision int8; it has: onnx fp32"):
        OnnxRuntimeEngine.open(open_bundle(tiny_bundle), "int8", threads=1)


def test_a_file_that_is_no_network_raises_bundle_error(rebuilt: Rebuild) -> None:
    bundle = rebuilt(b"not ONNX")
    with pytest.raises(BundleError, match=r"tiny\.onnx cannot be loaded by ONNX Runtime"):
        OnnxRuntimeEngine.open(bundle, "fp32", threads=1)


def network(tiny_bundle: Path) -> onnx.ModelProto:
    return onnx.load(str(tiny_bundle / "tiny.onnx"))


@pytest.mark.parametrize("which", ["input", "output"])
def test_tensor_names_that_differ_from_the_manifest_are_rejected(
    tiny_bundle: Path, rebuilt: Rebuild, which: str
) -> None:
    content = (tiny_bundle / "tiny.onnx").read_bytes()
    bundle = rebuilt(content, **{which: "other"})
    with pytest.raises(BundleError, match=rf"tiny\.onnx {which} .* the manifest wants .*'other'"):
        OnnxRuntimeEngine.open(bundle, "fp32", threads=1)


def test_an_input_size_that_differs_from_the_manifest_is_rejected(tiny_bundle: Path, rebuilt: Rebuild) -> None:
    model = network(tiny_bundle)
    for dimension in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[dimension].dim_value = 64
    bundle = rebuilt(model.SerializeToString())
    with pytest.raises(BundleError, match=r"\['N', 3, 64, 64\].* wants .*\['N', 3, 32, 32\]"):
        OnnxRuntimeEngine.open(bundle, "fp32", threads=1)


def test_a_network_with_a_fixed_batch_size_is_rejected(tiny_bundle: Path, rebuilt: Rebuild) -> None:
    model = network(tiny_bundle)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    bundle = rebuilt(model.SerializeToString())
    with pytest.raises(BundleError, match=r"\[1, 3, 32, 32\]"):
        OnnxRuntimeEngine.open(bundle, "fp32", threads=1)


def test_more_than_one_output_is_rejected(tiny_bundle: Path, rebuilt: Rebuild) -> None:
    model = network(tiny_bundle)
    model.graph.output.append(onnx.helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["N", 8]))
    bundle = rebuilt(model.SerializeToString())
    with pytest.raises(BundleError, match="the manifest wants"):
        OnnxRuntimeEngine.open(bundle, "fp32", threads=1)


def test_a_closed_engine_says_so(tiny_bundle: Path) -> None:
    engine = OnnxRuntimeEngine.open(open_bundle(tiny_bundle), "fp32", threads=1)
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.infer(np.zeros((1, 3, 32, 32), np.float32))


def test_a_provider_missing_in_this_build_lists_the_available_ones(tiny_bundle: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"no provider cann; it has: cpu\. Other builds have others"):
        OnnxRuntimeEngine.open(open_bundle(tiny_bundle), "fp32", threads=1, provider="cann")


def test_the_device_is_the_provider_in_use(tiny_bundle: Path) -> None:
    engine = OnnxRuntimeEngine.open(open_bundle(tiny_bundle), "fp32", threads=1, provider="cpu")
    assert engine.device == "CPUExecutionProvider"
    engine.close()


def test_the_setting_offers_exactly_the_providers_of_the_engine() -> None:
    assert allowed("engine_provider") == "one of " + ", ".join(PROVIDERS)
