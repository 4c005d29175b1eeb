"""ncnn on the CPU. The only module that imports it.

RepVGG consists of 3x3 convolutions, which ncnn computes with Winograd's algorithm: less than half of the
multiplications, in fp32. It takes the networks that training exports: convolutions and ReLUs, a mean, a matrix.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import BundleError
from service.engines.artifacts import check_outputs, check_tensors, choose_artifact
from service.engines.onnx_file import read_graph
from service.engines.runtimes.concurrency import AloneOrShared
from service.errors import EngineUnavailable
from service.machine.limits import memory_limits

# Read when ncnn is loaded. Its threads would otherwise spin while they wait, and take the CPU from those that decode.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import ncnn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from models.manifest import Artifact, Precision
    from models.store import Bundle
    from service.engines.onnx_file import Graph, Node

MAGIC = "7767517"
FLOAT32 = bytes(4)  # what precedes a layer's weights says how they are stored
INPUT = "image"
MEANS = ("ReduceMean", "GlobalAveragePool")
# Their order in memory is that of the mean's values already.
RESHAPES = ("Flatten", "Squeeze")
# Memory of a loaded network by that of its weights: Winograd's algorithm turns the 9 numbers of a kernel into 36.
EXPANSION = 4


class NcnnEngine:
    name = "ncnn"
    precision: Precision = "fp32"
    device = "CPU"

    def __init__(self, alone: Network, shared: Network, bundle: Bundle, gives_features: bool) -> None:
        """`alone` computes an image with all threads, `shared` one in each calling thread."""
        self.gives_features = gives_features
        self.input_size = bundle.manifest.preprocess.input_size
        self.num_classes = bundle.manifest.network.num_classes
        self._infer = AloneOrShared(alone.infer, shared.infer)
        self._networks = {id(network): network for network in (alone, shared)}

    @classmethod
    def open(cls, bundle: Bundle, precision: Precision, threads: int, slots: int = 1) -> NcnnEngine:
        """For `slots` calls at once; a call that is alone has all the threads, else they are divided.

        Raises BundleError for an artifact that is missing, cannot be loaded or does not fit the manifest,
        EngineUnavailable for a network with layers that it does not compute, or too large for the memory limit."""
        artifact = choose_artifact(cls.name, bundle, precision)
        program = _read(bundle, artifact)
        _check_memory(len(program.weights), networks=2 if slots > 1 else 1)
        alone = Network(program, threads)
        shared = Network(program, max(1, threads // slots)) if slots > 1 else alone
        return cls(alone, shared, bundle, getattr(artifact, "features", None) is not None)

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K); blocks, releases the GIL."""
        return self._infer(images, 1)[0]

    def infer_with_features(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """-> also feature maps float32 (N, C, h, w)."""
        logits, features = self._infer(images, 2)
        return logits, features

    def close(self) -> None:
        self._infer.close()
        for network in self._networks.values():
            network.close()
        self._networks.clear()


class Layer:
    """A line of ncnn's text format, and the weights that belong to it."""

    def __init__(self, kind: str, parameters: dict[int, int], *weights: NDArray[np.float32]) -> None:
        self.kind = kind
        self.parameters = " ".join(f"{key}={value}" for key, value in parameters.items())
        self.weights: list[Any] = [FLOAT32, *map(np.ascontiguousarray, weights)] if weights else []


class Program:
    """The layers, one after another, as ncnn reads them."""

    def __init__(self, layers: list[Layer]) -> None:
        names = [INPUT, *(f"{layer.kind}{number}" for number, layer in enumerate(layers))]
        lines = [
            f"{layer.kind} {output} 1 1 {source} {output} {layer.parameters}"
            for layer, source, output in zip(layers, names, names[1:])  # noqa: B905  # Python 3.7 has no strict
        ]
        self.text = "\n".join([MAGIC, f"{len(names)} {len(names)}", f"Input {INPUT} 0 1 {INPUT}", *lines, ""])
        self.outputs = [names[-1]]
        means = [source for layer, source in zip(layers, names) if layer.kind == "Pooling"]  # noqa: B905  # as above
        self.outputs += means[-1:]  # the last feature map
        self.weights = b"".join(part for layer in layers for part in layer.weights)


class Network:
    """A program, ready to compute one image after another in any number of threads."""

    def __init__(self, program: Program, threads: int) -> None:
        self._program = program  # ncnn leaves some of the weights where they are
        self._net = _configured(threads)
        if self._net.load_param_mem(program.text) != 0:
            raise BundleError("ncnn does not load the network that was made for it")
        self._net.load_model_mem(program.weights)

    def infer(self, images: NDArray[np.float32], outputs: int) -> list[NDArray[np.float32]]:
        names = self._program.outputs[:outputs]
        found = [self._infer_one(image, names) for image in np.ascontiguousarray(images, np.float32)]
        return [np.stack(those) for those in zip(*found)]  # noqa: B905  # as above

    def _infer_one(self, image: NDArray[np.float32], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        with self._net.create_extractor() as extractor:
            extractor.input(INPUT, ncnn.Mat(image))
            found = [extractor.extract(name) for name in reversed(outputs)]  # the first one is computed first
            if any(status != 0 for status, _ in found):
                raise MemoryError("ncnn could not compute the image")
            return [np.array(values) for _, values in reversed(found)]  # copies: the extractor owns the others

    def close(self) -> None:
        self._net.clear()


def _read(bundle: Bundle, artifact: Artifact) -> Program:
    path = bundle.path(artifact)
    graph = read_graph(path)
    size, classes = bundle.manifest.preprocess.input_size, bundle.manifest.network.num_classes
    check_tensors(f"{path} input", graph.inputs, artifact.input, [3, size, size])
    check_outputs(f"{path} output", graph.outputs, artifact, classes)
    try:
        return Program(list(translated(graph)))
    except ValueError as error:
        raise EngineUnavailable(f"the engine ncnn cannot compute {path}: {error}; other engines can") from error


def _check_memory(weights_bytes: int, networks: int) -> None:
    needed = weights_bytes * (1 + EXPANSION * networks)
    limit = min(memory_limits(), default=2 * needed)
    if 2 * needed > limit:  # the rest is for the program and its images
        raise EngineUnavailable(
            f"the engine ncnn would need {needed >> 20} MiB for this network, over half of the memory limit of "
            f"{limit >> 20} MiB; raise the limit, or serve it with another engine"
        )


def _configured(threads: int) -> ncnn.Net:
    net = ncnn.Net()
    net.opt.num_threads = threads
    for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage"):
        setattr(net.opt, half, False)
    return net


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
    rows, _, *sizes = kernel.shape
    padding = node.attributes.get("pads", [0, 0, 0, 0])
    strides, dilations = (node.attributes.get(name, [1, 1]) for name in ("strides", "dilations"))
    if node.attributes.get("group", 1) != 1:
        raise ValueError("it has grouped convolutions, which are not supported")
    if {*dilations} != {1} or any(len({*those}) > 1 for those in (sizes, padding, strides)) or len(sizes) != 2:
        raise ValueError("it has a convolution that is not square, or dilated, which is not supported")
    if node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise ValueError("it has a convolution with automatic padding, which is not supported")
    parameters = {0: rows, 1: sizes[0], 3: strides[0], 4: padding[0], 5: int(bias is not None), 6: kernel.size, 9: relu}
    return Layer("Convolution", parameters, kernel, *(() if bias is None else (bias,)))


def _matrix(node: Node, matrix: NDArray[np.float32], bias: NDArray[np.float32], *, relu: int) -> Layer:
    if node.attributes.get("transA") or any(node.attributes.get(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        raise ValueError("it has a scaled or transposed Gemm, which is not supported")
    rows = matrix if node.attributes.get("transB") else matrix.T
    return Layer("InnerProduct", {0: rows.shape[0], 1: 1, 2: rows.size, 9: relu}, rows, bias)
