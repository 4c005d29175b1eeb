"""A float32 ONNX network -> the same network in another precision.

1. inputs and outputs stay float32, with their names and any batch size;
2. each weight has a scale of its own for each output channel in int8, and zero stays exactly zero;
3. what an engine would round is rounded, and nothing else.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# As in training.deploy.onnx_engine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
from onnxruntime import quantization

OPSET = 17  # MindSpore 2.10 writes 11, and a scale a channel is known from 13 on
PRODUCTS = ("Conv", "Gemm")  # what multiplies weights

# The name of a way to choose the ranges of activations, and ONNX Runtime's for it.
CALIBRATIONS = {
    "minmax": quantization.CalibrationMethod.MinMax,
    "percentile": quantization.CalibrationMethod.Percentile,
    "entropy": quantization.CalibrationMethod.Entropy,
}


def upgraded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in OPSET, if it is older."""
    if model.opset_import[0].version >= OPSET:
        return model
    return onnx.version_converter.convert_version(model, OPSET)


class _Batches(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, batches: Iterable[NDArray[np.float32]]) -> None:
        self._feeds: Iterator[dict[str, Any]] = ({name: batch} for batch in batches)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def int8(model: onnx.ModelProto, batches: Iterable[NDArray[np.float32]], calibration: str) -> onnx.ModelProto:
    """QDQ form: activations uint8, in ranges learnt from float32 (N, 3, S, S) batches, and weights int8.

    Unsigned activations and signed weights are what the CPUs' int8 instructions multiply (x86 VNNI).
    """
    with tempfile.TemporaryDirectory() as folder, _silence():
        source, target = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        onnx.save(upgraded(model), source)
        quantization.quantize_static(
            source,
            target,
            _Batches(model.graph.input[0].name, batches),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=CALIBRATIONS[calibration],
        )
        return onnx.load_model(target)


@contextmanager
def _silence() -> Iterator[None]:
    """ONNX Runtime prints its progress, and recommends a tool of its own that finds nothing to do in our graphs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(before)


def fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and all arithmetic in float16, between casts of the input and of the output."""
    model = upgraded(_copy(model))
    graph = model.graph
    source, target = graph.input[0].name, graph.output[0].name
    _replace_weights(graph, [weight.name for weight in graph.initializer], lambda weight: weight.astype(np.float16))
    renamed = {source: f"{source}_fp16", target: f"{target}_fp16"}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    graph.node.insert(0, helper.make_node("Cast", [source], [renamed[source]], to=TensorProto.FLOAT16))
    graph.node.append(helper.make_node("Cast", [renamed[target]], [target], to=TensorProto.FLOAT))
    del graph.value_info[:]  # types of before
    return model


def bf16_emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """float32 that rounds both factors of every product to bfloat16 and adds up in float32, as the instructions do
    (Intel, "BFLOAT16 - Hardware Numerics Definition", 2018): to measure what bf16 costs where no CPU has it.
    """
    model = _copy(model)
    graph, nodes = model.graph, []
    _replace_weights(graph, [node.input[1] for node in graph.node if node.op_type in PRODUCTS], to_bfloat16)
    for node in graph.node:
        if node.op_type in PRODUCTS:
            source = node.input[0]
            for before, after, dtype in (("", "_bf16", TensorProto.BFLOAT16), ("_bf16", "_rounded", TensorProto.FLOAT)):
                nodes.append(helper.make_node("Cast", [source + before], [source + after], to=dtype))
            node.input[0] = f"{source}_rounded"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return upgraded(model)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded to the nearest of 8 significant bits, ties to even; finite values only."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded: NDArray[np.uint32] = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())  # type: ignore[no-any-return]


def _replace_weights(
    graph: onnx.GraphProto, names: Iterable[str], change: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    """The float32 ones of them, wherever they are used."""
    wanted = set(names)
    for weight in graph.initializer:
        if weight.name in wanted and weight.data_type == TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight)), weight.name))
