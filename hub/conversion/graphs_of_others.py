"""Any image classifier in ONNX -> a graph for every engine: float32 `(N, 3, S, S)` -> float32 logits `(N, K)`.

1. NHWC gets a transpose, float16 casts, and a fixed batch becomes a symbolic one, or a loop over images;
2. scores are not softmaxed twice: a final Softmax is removed, and probabilities become their logarithms;
3. anything but a single-label image classifier is refused with what was found;
4. the prepared graph is only accepted if it gives the same answers as the original.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    external_data_helper,
    helper,
    numpy_helper,
)

from hub.conversion.graph import INPUT, OUTPUT
from hub.conversion.running import Run, Tensors, open_onnx
from hub.errors import Unusable
from models.manifest import Precision

LARGEST_BYTES = 2_000_000_000  # of a message of protobuf, which is 2 GiB
# Nodes after a Softmax that change only the type of its scores.
_TRANSPARENT = ("Identity", "Cast", "QuantizeLinear", "DequantizeLinear")
_FLOATS: dict[int, type[np.floating]] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
_QUANTIZED = ("QuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
_SMALLEST = 1e-30  # probability, so that its logarithm is finite


@dataclass(frozen=True)
class Prepared:
    """`truth` runs the original graph, one image at a time; `notes`: what was changed, for people."""

    content: bytes
    truth: Run
    parameters: int
    precision: Precision
    notes: tuple[str, ...]


def external_files(path: Path) -> list[str]:
    """Names of the files with the graph's weights. Raises Unusable for one outside its folder."""
    model = _parse(path)
    names = {
        entry.value
        for tensor in external_data_helper._get_all_tensors(model)
        if external_data_helper.uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise Unusable(f"{path.name} keeps weights in {name!r}, which is outside its folder")
    return sorted(names)


def read(path: Path) -> ModelProto:
    """The graph with its weights. Raises Unusable."""
    files = [path, *(path.parent / name for name in external_files(path))]
    if missing := [file.name for file in files if not file.is_file()]:
        raise Unusable(f"{path.name} keeps weights in {', '.join(missing)}, which is missing next to it")
    if sum(file.stat().st_size for file in files) > LARGEST_BYTES:
        raise Unusable(f"{path.name} is over 2 GB with its weights, which is more than an ONNX file can hold")
    model = _parse(path)
    try:
        for tensor in external_data_helper._get_all_tensors(model):
            if external_data_helper.uses_external_data(tensor):
                _bring_in(tensor, path.parent)
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        raise Unusable(f"{path.name} is not valid ONNX: {str(error).strip().partition(chr(10))[0]}") from error
    return model


def _bring_in(tensor: TensorProto, folder: Path) -> None:
    """The weights from the files next to the graph. The package's own reader refuses links, and the Hub's cache
    consists of them."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    with (folder / place["location"]).open("rb") as file:
        file.seek(int(place.get("offset", 0)))
        tensor.raw_data = file.read(int(place["length"])) if "length" in place else file.read()
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.DEFAULT


def _parse(path: Path) -> ModelProto:
    try:
        return onnx.load_model(path, load_external_data=False)
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise Unusable(f"{path.name} is not ONNX: {type(error).__name__}") from error


def prepare(model: ModelProto, size: int, classes: int, output: str | None = None) -> Prepared:
    """For images of `size` pixels a side. Raises Unusable."""
    given = _Given.of(model, output)
    given.check(size)
    truth = _one_by_one(given, size)
    changed, notes = _changed(given, size, classes, truth)
    for fix in (_as_symbolic, _as_loop):
        graph, note = fix(changed, given, size, classes)
        if _agrees(graph, truth, size):
            notes += [note] if note else []
            _clean(graph)
            return Prepared(graph.SerializeToString(), truth, _parameters(model), _precision(model), tuple(notes))
    raise Unusable("the graph computes something else for two images than for each of them alone")


@dataclass(frozen=True)
class _Given:
    """The original graph: `batch` is 0 if it is symbolic; `channels_last`: NHWC."""

    model: ModelProto
    input: ValueInfoProto
    output: ValueInfoProto
    batch: int
    channels_last: bool

    @classmethod
    def of(cls, model: ModelProto, output: str | None) -> _Given:
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        if len(inputs) != 1:
            names = ", ".join(value.name for value in inputs) or "none"
            raise Unusable(f"an image classifier has one input, this graph has {len(inputs)}: {names}")
        shape = _shape(inputs[0])
        if len(shape) != 4:
            raise Unusable(f"an image classifier takes 4 dimensions, {inputs[0].name} has {len(shape)}: {shape}")
        last = shape[3] == 3 and shape[1] != 3
        return cls(model, inputs[0], _output(model, output), shape[0], last)

    def check(self, size: int) -> None:
        shape, kind = _shape(self.input), self.input.type.tensor_type.elem_type
        channels, height, width = (shape[3], *shape[1:3]) if self.channels_last else shape[1:]
        if kind not in _FLOATS:
            raise Unusable(f"{self.input.name} is {TensorProto.DataType.Name(kind)}; supported: FLOAT and FLOAT16")
        if channels not in (0, 3):
            raise Unusable(f"{self.input.name} has {channels} channels: {shape}; RGB images have 3")
        if not {height, width} <= {0, size}:
            raise Unusable(
                f"{self.input.name} takes {height} x {width} pixels, the preprocessing gives {size} x {size}"
            )
        if self.batch > 1:
            raise Unusable(
                f"{self.input.name} takes batches of exactly {self.batch} images: export it for one or for any"
            )


def _shape(value: ValueInfoProto) -> list[int]:
    """0 for a symbolic length."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _output(model: ModelProto, name: str | None) -> ValueInfoProto:
    outputs: dict[str, ValueInfoProto] = {value.name: value for value in model.graph.output}
    wanted = name or (next(iter(outputs)) if len(outputs) == 1 else OUTPUT)
    if wanted not in outputs:
        asked = f"no output {name!r}" if name else f"{len(outputs)} outputs and none named {OUTPUT!r}"
        raise Unusable(f"the graph has {asked}; it has: {', '.join(outputs)}. Name one with --output")
    return outputs[wanted]


def _one_by_one(given: _Given, size: int) -> Run:
    """The unchanged graph: float32 (N, 3, S, S) -> its scores, logits or probabilities (N, K)."""
    run = open_onnx(given.model.SerializeToString(), given.input.name, given.output.name)
    kind = _FLOATS[given.input.type.tensor_type.elem_type]

    def truth(tensors: Tensors) -> Tensors:
        shaped = tensors.transpose(0, 2, 3, 1) if given.channels_last else tensors
        rows = [run(np.ascontiguousarray(tensor[None], kind)).astype(np.float32) for tensor in shaped]
        return np.concatenate([row.reshape(1, -1) for row in rows])

    return truth


def _are_probabilities(scores: Tensors) -> bool:
    """Even if they are quantised, in steps of 1/256."""
    sums = scores.sum(1)
    slack = min(0.5, 1e-3 + scores.shape[1] / 512)
    return bool((scores >= 0).all() and (scores <= 1).all() and np.allclose(sums, 1, atol=slack))


def _final(graph: GraphProto, name: str, kind: str) -> NodeProto | None:
    """The node of this kind that produces `name`, seen through transparent nodes."""
    makers = {made: node for node in graph.node for made in node.output}
    while (node := makers.get(name)) is not None and node.op_type in _TRANSPARENT:
        name = node.input[0]
    return node if node is not None and node.op_type == kind else None


def _changed(given: _Given, size: int, classes: int, truth: Run) -> tuple[ModelProto, list[str]]:
    """A copy with our input and output, and the batch of the original."""
    sample = np.random.default_rng(0).standard_normal((2, 3, size, size), np.float32)
    if (found := truth(sample)).shape[1] != classes:
        raise Unusable(f"{given.output.name} has {found.shape[1]} scores for an image, there are {classes} labels")
    if _final(given.model.graph, given.output.name, "Sigmoid") is not None:
        raise Unusable(f"{given.output.name} ends in a Sigmoid: a multi-label network, whose scores are not a softmax")
    model, notes = ModelProto(), []
    model.CopyFrom(given.model)
    if {INPUT, OUTPUT} & _names(model.graph):
        model.CopyFrom(onnx.compose.add_prefix(model, "given."))  # our names are taken
    graph = model.graph
    source, target = _current(model, given)
    before, feed = [], INPUT
    if given.channels_last:
        before.append(helper.make_node("Transpose", [INPUT], ["repvgg.nhwc"], perm=[0, 2, 3, 1]))
        feed, notes = "repvgg.nhwc", ["NHWC: a transpose was put before it"]
    half = given.input.type.tensor_type.elem_type == TensorProto.FLOAT16
    before.append(helper.make_node("Cast", [feed], [source], to=TensorProto.FLOAT16 if half else TensorProto.FLOAT))
    after, told = _to_logits(graph, target, classes, given)
    _replace(graph.node, [*before, *graph.node, *after])
    del graph.value_info[:]
    _declare(graph, given.batch or "N", size, classes)
    return model, [*notes, *told]


def _current(model: ModelProto, given: _Given) -> tuple[str, str]:
    """Names of the copy's input and output."""
    at = [value.name for value in given.model.graph.input].index(given.input.name)
    to = [value.name for value in given.model.graph.output].index(given.output.name)
    return model.graph.input[at].name, model.graph.output[to].name


def _names(graph: GraphProto) -> set[str]:
    made = {name for node in graph.node for name in node.output}
    return made | {value.name for value in (*graph.input, *graph.initializer)}


def _to_logits(graph: GraphProto, target: str, classes: int, given: _Given) -> tuple[list[NodeProto], list[str]]:
    """Nodes that turn the graph's output into ours."""
    told: list[str] = []
    softmax = _final(graph, target, "Softmax")
    if softmax is not None:
        target, told = softmax.input[0], ["its final Softmax was removed"]
    graph.initializer.append(numpy_helper.from_array(np.asarray([-1, classes], np.int64), "repvgg.shape"))
    nodes = [
        helper.make_node("Cast", [target], ["repvgg.float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["repvgg.float", "repvgg.shape"], ["repvgg.scores"]),
    ]
    return [*nodes, helper.make_node("Identity", ["repvgg.scores"], [OUTPUT])], told


def _with_logarithm(model: ModelProto) -> ModelProto:
    """The same, for probabilities that do not come from a Softmax node."""
    found = ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    graph.initializer.append(numpy_helper.from_array(np.asarray([_SMALLEST], np.float32), "repvgg.smallest"))
    graph.node.pop()
    graph.node.append(helper.make_node("Max", ["repvgg.scores", "repvgg.smallest"], ["repvgg.positive"]))
    graph.node.append(helper.make_node("Log", ["repvgg.positive"], [OUTPUT]))
    return found


def _declare(graph: GraphProto, batch: int | str, size: int, classes: int) -> None:
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [batch, 3, size, size]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [batch, classes]))


def _as_symbolic(model: ModelProto, given: _Given, size: int, classes: int) -> tuple[ModelProto, str]:
    """For any batch: reshapes to a batch of one keep their input's batch instead."""
    found = ModelProto()
    found.CopyFrom(model)
    _declare(found.graph, "N", size, classes)
    if not given.batch:
        return found, ""
    shapes = {node.input[1] for node in found.graph.node if node.op_type == "Reshape"} - {"repvgg.shape"}
    constants = {node.output[0]: node.attribute[0].t for node in found.graph.node if node.op_type == "Constant"}
    constants |= {tensor.name: tensor for tensor in found.graph.initializer}
    for name in shapes & constants.keys():
        values = numpy_helper.to_array(constants[name]).copy()
        if values.size > 1 and values[0] == given.batch:
            values[0] = 0 if -1 in values else -1
            constants[name].CopyFrom(numpy_helper.from_array(values, constants[name].name))
    return found, "its fixed batch was made symbolic"


def _as_loop(model: ModelProto, given: _Given, size: int, classes: int) -> tuple[ModelProto, str]:
    """A Scan over the images: each goes through the graph alone."""
    body, graph = GraphProto(), GraphProto()
    body.CopyFrom(model.graph)
    graph.initializer.extend(body.initializer)
    del body.initializer[:], body.input[:], body.output[:]
    body.input.append(helper.make_tensor_value_info("repvgg.one", TensorProto.FLOAT, [3, size, size]))
    body.output.append(helper.make_tensor_value_info("repvgg.row", TensorProto.FLOAT, [classes]))
    before = helper.make_node("Reshape", ["repvgg.one", "repvgg.image_shape"], [INPUT])
    after = helper.make_node("Reshape", [OUTPUT, "repvgg.row_shape"], ["repvgg.row"])
    _replace(body.node, [before, *body.node, after])
    for node in body.node:  # our names outside
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = {INPUT: "repvgg.batch_of_one", OUTPUT: "repvgg.logits_of_one"}.get(name, name)
    graph.name = "one image at a time"
    for name, shape in (("repvgg.image_shape", [1, 3, size, size]), ("repvgg.row_shape", [classes])):
        graph.initializer.append(numpy_helper.from_array(np.asarray(shape, np.int64), name))
    graph.node.append(helper.make_node("Scan", [INPUT], [OUTPUT], body=body, num_scan_inputs=1))
    _declare(graph, "N", size, classes)
    found = ModelProto()
    found.CopyFrom(model)
    found.graph.CopyFrom(graph)
    return found, "its batch is fixed: images go through it one by one"


def _agrees(model: ModelProto, truth: Run, size: int) -> bool:
    """Whether it gives the same answers for three images together as the truth for each alone."""
    sample = np.random.default_rng(1).standard_normal((3, 3, size, size), np.float32)
    expected = truth(sample)
    try:
        found = open_onnx(model.SerializeToString(), INPUT, OUTPUT)(sample)
    except Unusable:
        return False
    if found.shape != expected.shape:
        return False
    if not _are_probabilities(expected):
        return bool(np.abs(found - expected).max() <= 1e-3 * max(1.0, float(expected.std())))
    if _are_probabilities(found):
        model.CopyFrom(_with_logarithm(model))
        found = np.log(np.maximum(found, _SMALLEST))
    return bool(np.abs(_softmax(found) - expected).max() <= 1 / 256)


def _softmax(logits: Tensors) -> Tensors:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def _clean(model: ModelProto) -> None:
    """Without nodes whose results are unused: those after a removed Softmax, other outputs."""
    graph, needed = model.graph, {OUTPUT}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input) | _used_inside(node)
    _replace(graph.node, reversed(kept))
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])


def _replace(field: Any, messages: Iterable[Any]) -> None:
    """New content of a repeated field: copies, since its messages die with it."""
    kept = [copy.deepcopy(message) for message in messages]
    del field[:]
    field.extend(kept)


def _used_inside(node: NodeProto) -> set[str]:
    inner = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
    inner += [graph for attribute in node.attribute for graph in attribute.graphs]
    return {name for graph in inner for part in graph.node for name in (*part.input, *_used_inside(part))} | {
        value.name for graph in inner for value in graph.output
    }


def _parameters(model: ModelProto) -> int:
    return max(1, sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer))


def _precision(model: ModelProto) -> Precision:
    """A float16 graph is served as fp32: there is nothing more exact."""
    return "fp32" if {node.op_type for node in model.graph.node}.isdisjoint(_QUANTIZED) else "int8"
