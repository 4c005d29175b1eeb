"""Each precision against ONNX's reference evaluator or a calculation by hand, on a small network with known weights."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from training.deploy import precisions


@pytest.fixture
def network():
    """Conv -> Relu -> mean -> Gemm in opset 11, as MindSpore exports; channels have different ranges."""
    rng = np.random.default_rng(4)
    scale = np.array([0.2, 0.5, 1.0, 1.0])[:, None, None, None]
    weights = {
        "kernel": rng.normal(size=(4, 3, 3, 3)) * scale,
        "bias": rng.normal(size=4) * 0.1,
        "head": rng.normal(size=(5, 4)),
        "shift": rng.normal(size=5),
    }
    nodes = [
        helper.make_node("Conv", ["image", "kernel", "bias"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("ReduceMean", ["relu"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["mean", "head", "shift"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(16, 3, 8, 8)).astype(np.float32)


def weight(model, name):
    return next(numpy_helper.to_array(entry) for entry in model.graph.initializer if entry.name == name)


def runtime(model, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


def built(kind, network, images):
    return precisions.int8(network, [images], "minmax") if kind == "int8" else getattr(precisions, kind)(network)


@pytest.mark.parametrize(("kind", "tolerance"), [("int8", 0.05), ("fp16", 0.002), ("bf16_emulated", 0.02)])
def test_each_precision_is_close_to_fp32_and_accepts_any_batch_size(network, images, kind, tolerance):
    before = network.SerializeToString()
    model = built(kind, network, images)
    onnx.checker.check_model(model, full_check=True)
    (expected,) = ReferenceEvaluator(network).run(None, {"image": images})
    reach = float(np.abs(expected).max())
    for batch in (1, 5, 16):
        found = runtime(model, images[:batch])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:batch], atol=tolerance * reach, rtol=0)
    assert np.abs(runtime(model, images) - expected).max() > 1e-6 * reach, "nothing was rounded"
    assert network.SerializeToString() == before, "the source must not change"


def test_int8_has_one_scale_per_output_channel(network, images):
    model = precisions.int8(network, [images], "minmax")
    kernel, scales = weight(model, "kernel_quantized"), weight(model, "kernel_scale")
    assert kernel.dtype == np.int8
    expected = np.abs(weight(network, "kernel")).max(axis=(1, 2, 3)) / 127
    np.testing.assert_allclose(scales, expected, rtol=1e-2)
    assert not weight(model, "kernel_zero_point").any()


def test_int8_logits_are_not_rounded(network, images):
    model = precisions.int8(network, [images], "minmax")
    assert [node.op_type for node in model.graph.node if "logits" in node.output] == ["Gemm"]
    assert (
        len(np.unique(runtime(model, np.concatenate([images * np.float32(scale) for scale in np.linspace(0, 1, 20)]))))
        > 256
    )


@pytest.mark.parametrize("calibration", list(precisions.CALIBRATIONS))
def test_every_calibration_works_and_is_silent(network, images, calibration, capfd):
    precisions.int8(network, [images[:8], images[8:]], calibration)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_fp16_halves_the_weights(network):
    model = precisions.fp16(network)
    assert {entry.data_type for entry in model.graph.initializer} == {TensorProto.FLOAT16}
    np.testing.assert_array_equal(weight(model, "head"), weight(network, "head").astype(np.float16))


def test_bfloat16_keeps_eight_significant_bits_and_rounds_ties_to_even():
    exact = np.array([1.0, -2.5, 0.0, 2.0**100, 1 + 1 / 128], np.float32)
    np.testing.assert_array_equal(precisions.to_bfloat16(exact), exact)
    between = np.array([1 + 1 / 256, 1 + 3 / 256, 1 + 1.01 / 256, -1 - 1 / 256], np.float32)
    np.testing.assert_array_equal(precisions.to_bfloat16(between), [1.0, 1 + 4 / 256, 1 + 2 / 256, -1.0])


def test_bf16_rounds_both_factors_of_each_product_and_nothing_else(network, images):
    model = precisions.bf16_emulated(network)
    rounded = precisions.to_bfloat16
    conv = ReferenceEvaluator(_first(network, "conv"))
    for name in ("kernel", "head"):
        np.testing.assert_array_equal(weight(model, name), rounded(weight(network, name)))
    np.testing.assert_array_equal(weight(model, "bias"), weight(network, "bias"))
    by_hand = _first(network, "conv")
    for entry in by_hand.graph.initializer:
        if entry.name == "kernel":
            entry.CopyFrom(numpy_helper.from_array(rounded(weight(network, "kernel")), "kernel"))
    (expected,) = ReferenceEvaluator(by_hand).run(None, {"image": rounded(images)})
    found = runtime(_first(model, "conv"), images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - conv.run(None, {"image": images})[0]).max() > 1e-4


def _first(model, output):
    """The part of the network up to `output`."""
    cut = onnx.ModelProto.FromString(model.SerializeToString())
    last = next(index for index, node in enumerate(cut.graph.node) if output in node.output)
    del cut.graph.node[last + 1 :]
    cut.graph.output[0].CopyFrom(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    return cut
