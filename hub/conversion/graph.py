"""RepVGG's deploy form as an ONNX graph, written with the `onnx` package alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from weights.variants import Variant

INPUT, OUTPUT = "image", "logits"
OPSET, IR_VERSION = 17, 8  # all engines of the table read it, and so do their older releases


def repvgg(weights: Mapping[str, NDArray[Any]], variant: Variant, size: int) -> ModelProto:
    """Fused weights under our names -> float32 `image` (N, 3, S, S) -> `logits` (N, K)."""
    nodes: list[NodeProto] = []
    source = INPUT
    for block in variant.blocks():
        how = {"strides": [block.stride] * 2, "pads": [1] * 4, "kernel_shape": [3, 3], "group": block.groups}
        nodes.append(_convolution(f"{block.name}.conv", source, **how))
        source = nodes[-1].output[0]
        if variant.squeeze_excite:
            nodes += _squeeze_excite(f"{block.name}.squeeze_excite", source)
            source = nodes[-1].output[0]
        nodes.append(helper.make_node("Relu", [source], [f"{block.name}.relu"]))
        source = nodes[-1].output[0]
    nodes.append(helper.make_node("ReduceMean", [source], ["pooled"], axes=[2, 3], keepdims=0))
    head = ["pooled", "classifier.weight", "classifier.bias"]
    nodes.append(helper.make_node("Gemm", head, [OUTPUT], transB=1))
    classes = len(weights["classifier.bias"])
    graph = helper.make_graph(
        nodes,
        "repvgg",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="repvgg"
    )


def _convolution(name: str, source: str, **how: Any) -> NodeProto:
    return helper.make_node("Conv", [source, f"{name}.weight", f"{name}.bias"], [name], **how)


def _squeeze_excite(name: str, source: str) -> list[NodeProto]:
    return [
        helper.make_node("ReduceMean", [source], [f"{name}.mean"], axes=[2, 3], keepdims=1),
        _convolution(f"{name}.down", f"{name}.mean", kernel_shape=[1, 1]),
        helper.make_node("Relu", [f"{name}.down"], [f"{name}.relu"]),
        _convolution(f"{name}.up", f"{name}.relu", kernel_shape=[1, 1]),
        helper.make_node("Sigmoid", [f"{name}.up"], [f"{name}.sigmoid"]),
        helper.make_node("Mul", [source, f"{name}.sigmoid"], [f"{name}.scaled"]),
    ]
