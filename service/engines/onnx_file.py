"""Reads an ONNX file without the package `onnx`, which serving does not install: for runtimes that cannot.

Only the messages and fields that a network of ours uses are described, by the numbers that ONNX's onnx.proto gives
them; protobuf does the rest and skips whatever else a file holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache  # Python 3.7 may read this file
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from models.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from service.engines.artifacts import Tensor

PACKAGE = "repvgg.onnx"
# Message -> its fields: name, number, type (a message if it is not one of protobuf's), repeated or not.
MESSAGES: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "Model": (("graph", 7, "Graph", False),),
    "Graph": (
        ("node", 1, "Node", True),
        ("initializer", 5, "Array", True),
        ("input", 11, "Value", True),
        ("output", 12, "Value", True),
    ),
    "Node": (
        ("input", 1, "string", True),
        ("output", 2, "string", True),
        ("op_type", 4, "string", False),
        ("attribute", 5, "Attribute", True),
    ),
    "Attribute": (
        ("name", 1, "string", False),
        ("f", 2, "float", False),
        ("i", 3, "int64", False),
        ("s", 4, "bytes", False),
        ("ints", 8, "int64", True),
    ),
    "Array": (
        ("dims", 1, "int64", True),
        ("data_type", 2, "int32", False),
        ("float_data", 4, "float", True),
        ("int64_data", 7, "int64", True),
        ("name", 8, "string", False),
        ("raw_data", 9, "bytes", False),
        ("data_location", 14, "int32", False),
    ),
    "Value": (("name", 1, "string", False), ("type", 2, "Type", False)),
    "Type": (("tensor_type", 1, "TensorType", False),),
    "TensorType": (("elem_type", 1, "int32", False), ("shape", 2, "Shape", False)),
    "Shape": (("dim", 1, "Dimension", True),),
    "Dimension": (("dim_value", 1, "int64", False),),
}
# ONNX's numbers of element types: the two that a float network and its axes are made of.
TYPES = {1: ("float32", "float_data"), 7: ("int64", "int64_data")}


@dataclass(frozen=True)
class Node:
    """`attributes`: an int, a list of ints, a float or a text by name; those of other kinds are left out."""

    op_type: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """`nodes` in the order of computation; `arrays` are the constants by name."""

    nodes: tuple[Node, ...]
    arrays: dict[str, NDArray[Any]]
    inputs: list[Tensor]
    outputs: list[Tensor]


def read_graph(path: Path) -> Graph:
    """Raises BundleError if it is not an ONNX file, or if its arrays are of other types or in other files."""
    model = _message_class("Model")()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's classes for this differ by its implementation
        raise BundleError(f"{path} is not an ONNX file: {error}") from error
    graph = model.graph
    if not graph.node:
        raise BundleError(f"{path} is not an ONNX file: it has no nodes")
    arrays = {array.name: _read_array(path, array) for array in graph.initializer}
    inputs = [_read_tensor(value) for value in graph.input if value.name not in arrays]
    return Graph(tuple(map(_read_node, graph.node)), arrays, inputs, [_read_tensor(value) for value in graph.output])


def _read_node(node: Any) -> Node:
    attributes = {one.name: _read_value(one) for one in node.attribute}
    known = {name: value for name, value in attributes.items() if value is not None}
    return Node(node.op_type, tuple(node.input), ",".join(node.output), known)


def _read_value(attribute: Any) -> Any:
    if attribute.ints:
        return list(attribute.ints)
    if attribute.HasField("s"):
        return attribute.s.decode(errors="replace")
    return next((getattr(attribute, field) for field in ("i", "f") if attribute.HasField(field)), None)


def _read_array(path: Path, array: Any) -> NDArray[Any]:
    if array.data_type not in TYPES or array.data_location:
        where = "lies in another file" if array.data_location else "is neither float32 nor int64"
        raise BundleError(f"{path}: the array {array.name} {where}")
    dtype, field = TYPES[array.data_type]
    values = np.frombuffer(array.raw_data, dtype) if array.raw_data else np.array(getattr(array, field), dtype)
    try:
        return values.reshape(tuple(array.dims))
    except ValueError as error:
        raise BundleError(f"{path}: the array {array.name} is damaged: {error}") from error


def _read_tensor(value: Any) -> Tensor:
    kind = value.type.tensor_type
    dtype, _ = TYPES.get(kind.elem_type, (f"type {kind.elem_type}", ""))
    return value.name, dtype, [one.dim_value if one.HasField("dim_value") else "N" for one in kind.shape.dim]


@lru_cache(maxsize=1)
def _message_class(name: str) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="onnx_file.proto", package=PACKAGE, syntax="proto2")
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for field, number, kind, repeated in fields:
            label = "LABEL_REPEATED" if repeated else "LABEL_OPTIONAL"
            one = described.field.add(name=field, number=number, label=label)
            if kind in MESSAGES:
                one.type_name = f".{PACKAGE}.{kind}"
                one.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
            else:
                one.type = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
