"""What ncnn computes: the layers of an ONNX graph in its text format, and their weights. Does not import ncnn.

A network is a plain chain, divided into three programs, so that the images of a batch can share the weights of the
last convolutions, which are most of them:

1. the trunk gives a feature map for each image;
2. the tail takes those maps side by side in one strip, with empty columns between them;
3. the head gives the logits for each image's part of the strip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from service.engines.onnx_file import Graph, Node

MAGIC = "7767517"
FLOAT32 = bytes(4)  # what precedes a layer's weights says how they are stored
IMAGE, MASK = "image", "mask"
MULTIPLY = 2  # BinaryOp's number for it
MEANS = ("ReduceMean", "GlobalAveragePool")
# Their order in memory is that of the mean's values already.
RESHAPES = ("Flatten", "Squeeze")


class Layer:
    """A line of ncnn's text format, and the weights that belong to it."""

    stride = 1

    def __init__(self, kind: str, parameters: dict[int, int], *weights: NDArray[np.float32]) -> None:
        self.kind = kind
        self.parameters = parameters
        self.weights: list[Any] = [FLOAT32, *map(np.ascontiguousarray, weights)] if weights else []

    @property
    def weights_bytes(self) -> int:
        return sum(memoryview(part).nbytes for part in self.weights)


class Convolution(Layer):
    """A square one. `relu`: 0 or 1."""

    def __init__(
        self,
        kernel: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        stride: int,
        padding: int,
        relu: int,
    ) -> None:
        rows, _, self.size, _ = kernel.shape
        self.stride, self.padding = stride, padding
        parameters = {0: rows, 1: self.size, 3: stride, 4: padding, 5: int(bias is not None), 6: kernel.size, 9: relu}
        super().__init__("Convolution", parameters, kernel, *(() if bias is None else (bias,)))


class Program:
    """Layers, one after another, as ncnn reads them, from the blob IMAGE. `outputs`: that of the last layer, and the
    last feature map, if a mean follows it. With `masked`, each output but the last is multiplied by a second input,
    MASK.
    """

    def __init__(self, layers: list[Layer], masked: bool = False) -> None:
        lines = [f"Input {IMAGE} 0 1 {IMAGE}"]
        masks = [f"{MASK}{number}" for number in range(len(layers) - 1)] if masked else []
        if masks:
            lines += [f"Input {MASK} 0 1 {MASK}", f"Split split 1 {len(masks)} {MASK} {' '.join(masks)}"]
        at = IMAGE
        maps = []
        for number, layer in enumerate(layers):
            lines.append(_line(layer.kind, [at], f"{layer.kind}{number}", layer.parameters))
            if layer.kind == "Pooling":
                maps.append(at)
            at = f"{layer.kind}{number}"
            if number < len(masks):
                lines.append(_line("BinaryOp", [at, masks[number]], f"masked{number}", {0: MULTIPLY}))
                at = f"masked{number}"
        self.outputs = [at, *maps[-1:]]
        self.masked = bool(masks)
        blobs = sum(int(line.split()[3]) for line in lines)
        self.text = "\n".join([MAGIC, f"{len(lines)} {blobs}", *lines, ""])
        self.weights = b"".join(part for layer in layers for part in layer.weights)


def _line(kind: str, inputs: list[str], output: str, parameters: dict[int, int]) -> str:
    values = " ".join(f"{key}={value}" for key, value in parameters.items())
    return f"{kind} {output} {len(inputs)} 1 {' '.join(inputs)} {output} {values}"


class Programs(NamedTuple):
    """`stride`: of the tail as a whole, 1 or 2. Trunk and tail may have no layers."""

    trunk: Program
    tail: Program
    head: Program
    stride: int


def divided(layers: list[Layer]) -> Programs:
    """The tail is as long as possible: 3x3 convolutions that keep the size of the map, or, the last one, halve it."""
    end = next((number for number, layer in enumerate(layers) if not isinstance(layer, Convolution)), len(layers))
    start = end
    while start and _keeps_its_place(layers[start - 1], may_halve=start == end):
        start -= 1
    tail = layers[start:end]
    stride = max((layer.stride for layer in tail), default=1)
    return Programs(Program(layers[:start]), Program(tail, masked=True), Program(layers[end:]), stride)


def _keeps_its_place(layer: Layer, may_halve: bool) -> bool:
    """Does the layer turn a strip of maps into a strip of its outputs?"""
    return (
        isinstance(layer, Convolution)
        and (layer.size, layer.padding) == (3, 1)
        and layer.stride in ((1, 2) if may_halve else (1,))
    )


def translated(graph: Graph) -> Iterator[Layer]:
    """The layers of ncnn that compute what the graph computes. Raises ValueError for a graph that they cannot
    compute."""
    at = graph.inputs[0][0]
    nodes = list(graph.nodes)
    while nodes:
        node = nodes.pop(0)
        if not node.inputs or node.inputs[0] != at:
            raise ValueError(f"{node.op_type} does not follow the layer before it, and only a plain chain is supported")
        relu = nodes[0] if nodes and nodes[0].op_type == "Relu" and nodes[0].inputs == (node.output,) else None
        at = (relu or node).output
        if relu:
            nodes.pop(0)
        if node.op_type not in RESHAPES:
            yield _layer(node, [_constant(graph, name) for name in node.inputs[1:]], int(relu is not None))
    if at != graph.outputs[0][0]:
        raise ValueError("its last layer is not its output")


def _constant(graph: Graph, name: str) -> NDArray[Any]:
    if name not in graph.arrays:
        raise ValueError(f"{name} is computed and no constant, and only a plain chain is supported")
    return graph.arrays[name]


def _layer(node: Node, constants: list[NDArray[Any]], relu: int) -> Layer:
    if node.op_type == "Conv":
        return _convolution(node, *constants, relu=relu)
    if node.op_type == "Gemm" and len(constants) == 2:
        return _matrix(node, *constants, relu=relu)
    if node.op_type in MEANS and not relu and _axes(node, constants) in ([2, 3], [-2, -1]):
        return Layer("Pooling", {0: 1, 4: 1})  # the mean of each channel
    raise ValueError(f"it has a layer {node.op_type}{' with ReLU' * relu}, which is not supported")


def _axes(node: Node, constants: list[NDArray[Any]]) -> list[int]:
    if node.op_type == "GlobalAveragePool":
        return [2, 3]
    given = constants[0].tolist() if constants else node.attributes.get("axes", [])
    return sorted(given)


def _convolution(
    node: Node, kernel: NDArray[np.float32], bias: NDArray[np.float32] | None = None, *, relu: int
) -> Layer:
    sizes = kernel.shape[2:]
    padding = node.attributes.get("pads", [0, 0, 0, 0])
    strides, dilations = (node.attributes.get(name, [1, 1]) for name in ("strides", "dilations"))
    if node.attributes.get("group", 1) != 1:
        raise ValueError("it has grouped convolutions, which are not supported")
    if {*dilations} != {1} or any(len({*those}) > 1 for those in (sizes, padding, strides)) or len(sizes) != 2:
        raise ValueError("it has a convolution that is not square, or dilated, which is not supported")
    if node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise ValueError("it has a convolution with automatic padding, which is not supported")
    return Convolution(kernel, bias, strides[0], padding[0], relu)


def _matrix(node: Node, matrix: NDArray[np.float32], bias: NDArray[np.float32], *, relu: int) -> Layer:
    if node.attributes.get("transA") or any(node.attributes.get(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        raise ValueError("it has a scaled or transposed Gemm, which is not supported")
    rows = matrix if node.attributes.get("transB") else matrix.T
    return Layer("InnerProduct", {0: rows.shape[0], 1: 1, 2: rows.size, 9: relu}, rows, bias)
