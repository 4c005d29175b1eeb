"""A bundle's network up to its classifier, by ONNX Runtime, and the same network with another classifier.

1. what enters the classifier is computed from the bundle's own fp32 ONNX, at any image size that its strides divide;
2. with a new classifier and image size, everything before the classifier stays as it is, bit for bit;
3. a network whose classifier is not one matrix and one bias is refused by name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from models.errors import BundleError
from models.store import Bundle
from training.errors import DataError

# As in training.deploy.offline.onnx_engine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

Floats = NDArray[np.float32]
ENGINE = f"onnxruntime {onnxruntime.__version__}"


@dataclass(frozen=True)
class Head:
    """Logits are `features @ weight.T + bias`: float32 (K, C) and (K,)."""

    weight: Floats
    bias: Floats

    @property
    def size(self) -> int:
        """How many parameters it has."""
        return self.weight.size + self.bias.size

    def __call__(self, rows: Floats) -> Floats:
        logits: Floats = (rows.astype(np.float64) @ self.weight.T + self.bias).astype(np.float32)
        return logits


class Backbone:
    """Raises DataError for a bundle without ONNX in fp32, and for a network without a classifier of this kind."""

    def __init__(self, bundle: Bundle) -> None:
        try:
            artifact = bundle.artifact(("onnx",), "fp32")
        except BundleError as error:
            raise DataError(str(error)) from error
        self._model = onnx.load_model(bundle.path(artifact))
        self._constants = {constant.name: constant for constant in self._model.graph.initializer}
        self._last = self._classifier(artifact.output, bundle)
        self.input, self.output = artifact.input, artifact.output

    def _classifier(self, output: str, bundle: Bundle) -> list[NodeProto]:
        """The nodes of the classifier, the first of which takes the features first and the matrix second."""
        makers = {name: node for node in self._model.graph.node for name in node.output}
        last = makers[output]
        if last.op_type == "Add":
            product = next((makers[name] for name in last.input if name in makers), last)
            nodes = [product, last] if set(last.input) & set(self._constants) else [last]
        else:
            nodes = [last]
        if nodes[0].op_type not in ("Gemm", "MatMul") or nodes[0].input[1] not in self._constants:
            raise DataError(
                f"{bundle.folder}: the network ends in {last.op_type}, not in a classifier of one matrix and one bias: "
                "choose another bundle with --from"
            )
        return nodes

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        model = _copy(self._model)
        _forget_sizes(model)
        for node in self._last:
            model.graph.node.remove(node)
        del model.graph.output[:]
        model.graph.output.append(onnx.helper.make_tensor_value_info(self.features, onnx.TensorProto.FLOAT, None))
        return session(model.SerializeToString())

    @property
    def features(self) -> str:
        """The name of the tensor that enters the classifier."""
        return str(self._last[0].input[0])

    def compute(self, tensors: Floats) -> Floats:
        """float32 (N, 3, S, S) -> (N, C)"""
        return np.asarray(self._session.run(None, {self.input: tensors})[0], np.float32)

    @cached_property
    def stride(self) -> int:
        """Pixels of the image for each of the last feature map; the image size itself where that cannot be told."""
        model = _copy(self._model)
        size = int(model.graph.input[0].type.tensor_type.shape.dim[2].dim_value)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        sides = {value.name: value.type.tensor_type.shape.dim for value in (*inferred.value_info, *inferred.output)}
        pooled = next((node for node in model.graph.node if self.features in node.output), None)
        dims = sides.get(pooled.input[0]) if pooled is not None and pooled.input else None
        return size // int(dims[2].dim_value) if dims is not None and len(dims) == 4 and dims[2].dim_value else size

    def classifier(self) -> Head:
        """The one that the bundle has."""
        first, last = self._last[0], self._last[-1]
        weight = numpy_helper.to_array(self._constants[first.input[1]])
        transposed = any(one.name == "transB" and one.i for one in first.attribute)
        summands = {"Gemm": last.input[2:], "Add": last.input, "MatMul": ()}[last.op_type]
        bias = next((self._constants[name] for name in summands if name in self._constants), None)
        shift = numpy_helper.to_array(bias) if bias is not None else np.zeros(1)
        matrix = weight if transposed else weight.T
        return Head(matrix, np.broadcast_to(shift.astype(np.float32), len(matrix)))

    def with_head(self, head: Head, size: int) -> ModelProto:
        """The network with this classifier, for images of `size` pixels."""
        model = _copy(self._model)
        _forget_sizes(model)
        shape = model.graph.input[0].type.tensor_type.shape
        for dimension in shape.dim[2:]:
            dimension.dim_value = size
        old = {name for node in self._last for name in node.input if name in self._constants}
        for node in self._last:
            model.graph.node.remove(node)
        for constant in [one for one in model.graph.initializer if one.name in old]:
            model.graph.initializer.remove(constant)
        names = ("classifier.weight", "classifier.bias")
        node = onnx.helper.make_node("Gemm", [self.features, *names], [self.output], transB=1)
        model.graph.node.append(node)
        model.graph.initializer.extend(map(numpy_helper.from_array, (head.weight, head.bias), names))
        result = onnx.helper.make_tensor_value_info(self.output, onnx.TensorProto.FLOAT, ["N", len(head.bias)])
        del model.graph.output[:]
        model.graph.output.append(result)
        onnx.checker.check_model(model)
        return model


def session(model: bytes) -> onnxruntime.InferenceSession:
    """On the CPU, for photos that are spread over threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _copy(model: ModelProto) -> ModelProto:
    return ModelProto.FromString(model.SerializeToString())  # type: ignore[no-any-return]


def _forget_sizes(model: ModelProto) -> None:
    for dimension, name in zip(model.graph.input[0].type.tensor_type.shape.dim, ("N", None, "H", "W"), strict=True):
        if name:
            dimension.dim_param = name
    del model.graph.value_info[:]
