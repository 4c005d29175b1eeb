"""A float32 ONNX network -> the same network in another precision.

1. inputs and outputs stay float32, keep their names and accept any batch size;
2. in int8, weights have one scale per output channel, and zero stays exactly zero; logits are not rounded, which would
   cut off those of unlikely labels;
3. only the values that an engine would round are rounded.
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

# As in training.deploy.offline.onnx_engine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
from onnxruntime import quantization

OPSET = 17  # MindSpore 2.10 writes 11, but one scale per channel needs 13
PRODUCTS = ("Conv", "Gemm")  # the operators that multiply by weights

# Methods to choose the ranges of activations, by our name.
CALIBRATIONS = {
    "minmax": quantization.CalibrationMethod.MinMax,
    "percentile": quantization.CalibrationMethod.Percentile,
    "entropy": quantization.CalibrationMethod.Entropy,
}


def upgraded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in OPSET or a later opset."""
    if model.opset_import[0].version >= OPSET:
        return model
    return onnx.version_converter.convert_version(model, OPSET)


class _Batches(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, batches: Iterable[NDArray[np.float32]]) -> None:
        self._feeds: Iterator[dict[str, Any]] = ({name: batch} for batch in batches)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def int8(model: onnx.ModelProto, batches: Iterable[NDArray[np.float32]], calibration: str) -> onnx.ModelProto:
    """QDQ form: uint8 activations, with ranges calibrated on float32 (N, 3, S, S) batches, and int8 weights.

    The int8 instructions of CPUs (x86 VNNI) multiply unsigned by signed numbers.
    """
    with tempfile.TemporaryDirectory() as folder, _silenced():
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
        return _with_exact_output(onnx.load_model(target))


def _with_exact_output(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the rounding of the last product."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    last = makers[graph.output[0].name]
    if last.op_type == "DequantizeLinear":
        rounding = makers[last.input[0]]
        makers[rounding.input[0]].output[0] = graph.output[0].name
        graph.node.remove(rounding)
        graph.node.remove(last)
        for constant in [one for one in graph.initializer if one.name in rounding.input]:
            graph.initializer.remove(constant)
    return model


@contextmanager
def _silenced() -> Iterator[None]:
    """Hides ONNX Runtime's progress, and its advice to run a preprocessing tool that changes nothing in our graphs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(before)


def fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """float16 weights and arithmetic, between casts of the input and the output."""
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
    del graph.value_info[:]  # the old types
    return model


def bf16_emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 network that computes as in bfloat16, to measure the accuracy of bf16 on a CPU that lacks it.

    Both factors of every product are rounded to bfloat16, and sums are in float32, as the instructions do it (Intel,
    "BFLOAT16 - Hardware Numerics Definition", 2018).
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
    """Round to 8 significant bits, ties to even; for finite values only."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded: NDArray[np.uint32] = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())  # type: ignore[no-any-return]


def _replace_weights(
    graph: onnx.GraphProto, names: Iterable[str], change: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    """Apply `change` to those of the named weights that are float32."""
    wanted = set(names)
    for weight in graph.initializer:
        if weight.name in wanted and weight.data_type == TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight)), weight.name))
