"""Small classifiers as the exporters of others write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

SIZE, CLASSES = 16, 5


def _weights() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(3)
    return {
        "conv.weight": rng.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(0, 0.3, 8).astype(np.float32),
        "head.weight": rng.normal(0, 1.5, (CLASSES, 8)).astype(np.float32),
        "head.bias": rng.normal(0, 0.3, CLASSES).astype(np.float32),
    }


def _model(nodes: list[Any], weights: dict[str, Any], source: Any, target: Any, opset: int = 17) -> ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    targets = target if isinstance(target, list) else [target]
    graph = helper.make_graph(nodes, "main_graph", [source], targets, tensors)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, producer_name="pytorch"
    )
    onnx.checker.check_model(model)
    return model


def _info(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _body(source: str, reshape: bool = False) -> list[Any]:
    node = helper.make_node
    pooled = [node("ReduceMean", ["relu"], ["pooled"], axes=[2, 3], keepdims=0)]
    if reshape:  # torch's `view(1, -1)`, traced with a batch of one
        pooled = [
            node("GlobalAveragePool", ["relu"], ["mean"]),
            node("Constant", [], ["shape"], value=numpy_helper.from_array(np.asarray([1, 8], np.int64))),
            node("Reshape", ["mean", "shape"], ["pooled"]),
        ]
    return [
        node("Conv", [source, "conv.weight", "conv.bias"], ["conv"], strides=[2, 2], pads=[1] * 4),
        node("Relu", ["conv"], ["relu"]),
        *pooled,
        node("Gemm", ["pooled", "head.weight", "head.bias"], ["logits"], transB=1),
    ]


def torch_dynamic() -> ModelProto:
    """torch.onnx with dynamic axes."""
    source = _info("pixel_values", ["batch_size", 3, "height", "width"])
    return _model(_body("pixel_values"), _weights(), source, _info("logits", ["batch_size", CLASSES]))


def torch_fixed() -> ModelProto:
    """torch.onnx with the shapes of its example, and a view of them."""
    source = _info("input.1", [1, 3, SIZE, SIZE])
    return _model(_body("input.1", reshape=True), _weights(), source, _info("logits", [1, CLASSES]))


def with_our_names() -> ModelProto:
    """An input `image` in NHWC: our name for another thing."""
    nodes = [helper.make_node("Transpose", ["image"], ["nchw"], perm=[0, 3, 1, 2]), *_body("nchw")]
    return _model(nodes, _weights(), _info("image", ["N", SIZE, SIZE, 3]), _info("logits", ["N", CLASSES]))


def tf_nhwc() -> ModelProto:
    """tf2onnx: NHWC, scores by a Softmax."""
    nodes = [
        helper.make_node("Transpose", ["input_1:0"], ["nchw"], perm=[0, 3, 1, 2]),
        *_body("nchw"),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
        helper.make_node("Identity", ["scores"], ["predictions"]),
    ]
    source = _info("input_1:0", ["unk__1", SIZE, SIZE, 3])
    return _model(nodes, _weights(), source, _info("predictions", ["unk__1", CLASSES]), opset=13)


def decomposed_softmax() -> ModelProto:
    """Probabilities that no Softmax node makes."""
    nodes = [
        *_body("x"),
        helper.make_node("Exp", ["logits"], ["e"]),
        helper.make_node("ReduceSum", ["e", "axis"], ["sum"], keepdims=1),
        helper.make_node("Div", ["e", "sum"], ["p"]),
    ]
    weights = _weights() | {"axis": np.asarray([1], np.int64)}
    return _model(nodes, weights, _info("x", ["N", 3, SIZE, SIZE]), _info("p", ["N", CLASSES]))


def half_with_casts() -> ModelProto:
    """float16 weights behind a float16 input."""
    weights = {name: array.astype(np.float16) for name, array in _weights().items()}
    source = _info("x", ["N", 3, SIZE, SIZE], TensorProto.FLOAT16)
    return _model(_body("x"), weights, source, _info("logits", ["N", CLASSES], TensorProto.FLOAT16))


def quantized() -> ModelProto:
    """QDQ int8 weights and activations, scores quantised behind a Softmax."""
    weights = _weights()
    kernel = weights.pop("conv.weight")
    scale = np.abs(kernel).max() / 127
    weights |= {
        "kernel.q": np.rint(kernel / scale).astype(np.int8),
        "kernel.scale": np.float32(scale),
        "zero": np.int8(0),
        "x.scale": np.float32(0.05),
        "p.scale": np.float32(1 / 255),
        "p.zero": np.int8(-128),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x.scale", "zero"], ["x.q"]),
        helper.make_node("DequantizeLinear", ["x.q", "x.scale", "zero"], ["x.dq"]),
        helper.make_node("DequantizeLinear", ["kernel.q", "kernel.scale", "zero"], ["conv.weight"]),
        *_body("x.dq"),
        helper.make_node("Softmax", ["logits"], ["p"], axis=1),
        helper.make_node("QuantizeLinear", ["p", "p.scale", "p.zero"], ["p.q"]),
        helper.make_node("DequantizeLinear", ["p.q", "p.scale", "p.zero"], ["scores"]),
    ]
    return _model(nodes, weights, _info("x", ["N", 3, SIZE, SIZE]), _info("scores", ["N", CLASSES]))


def mixing_its_batch() -> ModelProto:
    """A scale over the whole batch, as dynamic quantisation has it."""
    nodes = [
        helper.make_node("Abs", ["x"], ["abs"]),
        helper.make_node("ReduceMax", ["abs"], ["max"], keepdims=0),
        helper.make_node("Div", ["x", "max"], ["scaled"]),
        *_body("scaled"),
    ]
    return _model(nodes, _weights(), _info("x", ["N", 3, SIZE, SIZE]), _info("logits", ["N", CLASSES]))


def two_outputs() -> ModelProto:
    targets = [_info("pooled", ["N", 8]), _info("logits", ["N", CLASSES])]
    return _model(_body("x"), _weights(), _info("x", ["N", 3, SIZE, SIZE]), targets)


def multi_label() -> ModelProto:
    nodes = [*_body("x"), helper.make_node("Sigmoid", ["logits"], ["scores"])]
    return _model(nodes, _weights(), _info("x", ["N", 3, SIZE, SIZE]), _info("scores", ["N", CLASSES]))


def two_inputs() -> ModelProto:
    model = torch_dynamic()
    model.graph.input.append(_info("mask", ["N"]))
    return model


def text_input() -> ModelProto:
    nodes = [helper.make_node("Gemm", ["x", "head.weight"], ["logits"], transB=1)]
    return _model(
        nodes, {"head.weight": _weights()["head.weight"]}, _info("x", ["N", 8]), _info("logits", ["N", CLASSES])
    )


def batch_of_four() -> ModelProto:
    return _model(_body("x"), _weights(), _info("x", [4, 3, SIZE, SIZE]), _info("logits", [4, CLASSES]))


def grey_input() -> ModelProto:
    weights = _weights()
    weights["conv.weight"] = weights["conv.weight"][:, :1]
    return _model(_body("x"), weights, _info("x", ["N", 1, SIZE, SIZE]), _info("logits", ["N", CLASSES]))
