"""Gives an ONNX network the output that explanations need, its last feature map, and extracts the matrix after it.

1. the network computes the same as before: an existing tensor becomes an output;
2. the matrix is the one that the network multiplies by, dequantised if it is quantised;
3. a network that does not end in a mean and a matrix stays as it is.

Needs the package `onnx`, which serving does not install.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from models.explanation.head import Head
from models.manifest import Artifact, Features

OUTPUT = "features"
# Nodes that change neither values nor order, except for rounding.
_TRANSPARENT = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Dropout", "QuantizeLinear", "DequantizeLinear")
_FACTORS = {"transA": 0, "alpha": 1.0, "beta": 1.0}


@dataclass(frozen=True)
class Explained:
    """`model` has the feature map, float32 (N, C, h, w), as its output `output`."""

    model: ModelProto
    output: str
    head: Head

    def of(self, artifact: Artifact) -> tuple[Artifact, dict[str, bytes]]:
        """The artifact with this second output, and the files that it names."""
        stem = PurePosixPath(artifact.file)
        content, matrix = self.model.SerializeToString(), self.head.encode()
        head = str(stem.with_suffix(".head.npz"))
        features = Features(output=self.output, head=head, sha256=hashlib.sha256(matrix).hexdigest())
        update = {"sha256": hashlib.sha256(content).hexdigest(), "features": features}
        return artifact.model_copy(update=update), {artifact.file: content, head: matrix}


@dataclass(frozen=True)
class Classifier:
    """The first output is `head` of the tensor `means` (N, C). That is the mean over the cells of the tensor
    `features` (N, C, h, w), or `features` is None."""

    means: str
    head: Head
    features: str | None


def classifier(model: ModelProto) -> Classifier | None:
    """None for a network whose first output is not a matrix times a tensor, plus a bias."""
    nodes = _Nodes(model)
    found = nodes.matrix(model.graph.output[0].name)
    return Classifier(*found, nodes.averaged(found[0])) if found else None


def explained(model: ModelProto) -> Explained | None:
    """The network with the second output. None for one whose first output is not a matrix times a mean over the cells
    of a feature map, plus a bias."""
    model = without_features(model)
    found = classifier(model)
    if found is None or found.features is None:
        return None
    _append_output(model, found.features, channels=found.head.weight.shape[1])
    return Explained(model, model.graph.output[1].name, found.head)


def without_features(model: ModelProto) -> ModelProto:
    """A copy with the first output only."""
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[1:]
    return copy


class _Nodes:
    """The nodes and constants that the tensors of a network come from."""

    def __init__(self, model: ModelProto) -> None:
        self._makers = {made: node for node in model.graph.node for made in node.output}
        self._arrays = {array.name: array for array in model.graph.initializer}

    def matrix(self, name: str) -> tuple[str, Head] | None:
        """The input of the matrix that produces `name`, and the matrix with its bias."""
        node = self._maker(name)
        if node is None:
            return None
        if node.op_type == "MatMul":
            return self._product(node, None)
        if node.op_type == "Gemm" and all(_attribute(node, key, value) == value for key, value in _FACTORS.items()):
            return self._product(node, *node.input[2:])
        if node.op_type == "Add":
            for product, bias in (node.input, reversed(node.input)):
                made = self._maker(product)
                if made is not None and made.op_type == "MatMul" and (found := self._product(made, bias)):
                    return found
        return None

    def _product(self, node: NodeProto, bias: str | None = None) -> tuple[str, Head] | None:
        weight = self._constant(node.input[1])
        offsets = self._constant(bias) if bias else np.float32(0)
        if weight is None or weight.ndim != 2 or offsets is None:
            return None
        rows = weight if _attribute(node, "transB", 0) else weight.T
        if offsets.size not in (1, len(rows)):
            return None
        whole = np.broadcast_to(offsets.reshape(-1), len(rows))
        return node.input[0], Head(np.ascontiguousarray(rows, np.float32), np.ascontiguousarray(whole, np.float32))

    def averaged(self, name: str) -> str | None:
        """The feature map whose mean over the cells is `name`."""
        node = self._maker(name)
        if node is None or node.op_type not in ("GlobalAveragePool", "ReduceMean"):
            return None
        axes = [2, 3] if node.op_type == "GlobalAveragePool" else _attribute(node, "axes", None)
        if axes is None and len(node.input) > 1:
            axes = self._constant(node.input[1])
        return node.input[0] if axes is not None and sorted(axes) in ([2, 3], [-2, -1]) else None

    def _maker(self, name: str) -> NodeProto | None:
        """The node that produces `name`, seen through transparent nodes."""
        while (node := self._makers.get(name)) is not None and node.op_type in _TRANSPARENT:
            name = node.input[0]
        return node

    def _constant(self, name: str) -> NDArray[Any] | None:
        """Its value, if it does not depend on the network's input and its nodes are known."""
        if name in self._arrays:
            return numpy_helper.to_array(self._arrays[name])
        node = self._makers.get(name)
        if node is None or node.op_type not in _EVALUATED:
            return None
        values = [self._constant(source) for source in node.input]
        return None if any(value is None for value in values) else _EVALUATED[node.op_type](node, *values)


def _dequantized(
    node: NodeProto, values: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any] | int = 0
) -> NDArray[Any]:
    """With one scale, or one for each index of an axis."""
    shape = [1] * values.ndim
    if scale.ndim:
        shape[_attribute(node, "axis", 1)] = scale.size
    shifted = values.astype(np.float32) - np.asarray(zero, np.float32).reshape(shape if scale.ndim else ())
    return np.asarray(shifted * scale.reshape(shape if scale.ndim else ()))


_EVALUATED: dict[str, Callable[..., NDArray[Any]]] = {
    "Constant": lambda node: numpy_helper.to_array(_attribute(node, "value", None)),
    "Identity": lambda _, values: values,
    "Cast": lambda _, values: values,
    "Transpose": lambda node, values: values.transpose(_attribute(node, "perm", None)),
    "DequantizeLinear": _dequantized,
}


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    found = next((one for one in node.attribute if one.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def _append_output(model: ModelProto, source: str, channels: int) -> None:
    """`source` becomes the second output, in float32, with a name of ours."""
    graph = model.graph
    output, taken = OUTPUT, {name for node in graph.node for name in (*node.input, *node.output)}
    while output in taken:
        output += "_"
    kind, cells = _type(model, source)
    if kind == TensorProto.FLOAT:
        for node in graph.node:
            node.input[:] = [output if name == source else name for name in node.input]
            node.output[:] = [output if name == source else name for name in node.output]
        for value in graph.value_info:
            if value.name == source:
                value.name = output
    else:
        graph.node.append(helper.make_node("Cast", [source], [output], to=TensorProto.FLOAT))
    shape = ["N", channels, *cells]
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))


def _type(model: ModelProto, name: str) -> tuple[int, list[int | str]]:
    """Element type of a tensor, and its height and width."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    value = next((value.type.tensor_type for value in graph.value_info if value.name == name), None)
    if value is None:
        return TensorProto.UNDEFINED, ["H", "W"]
    cells = [dim.dim_value or letter for dim, letter in zip(value.shape.dim[2:], "HW", strict=False)]
    return value.elem_type, cells if len(cells) == 2 else ["H", "W"]
