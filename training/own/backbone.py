"""A bundle's network up to its classifier, by ONNX Runtime, and the same network with another classifier.

1. the classifier's input is computed from the bundle's own ONNX, at any image size that its strides divide;
2. with a new classifier and image size, everything before the classifier stays as it is, bit for bit;
3. a network whose classifier is not one matrix and one bias is refused by name.
"""

from __future__ import annotations

import os
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from models.errors import BundleError
from models.explanation.features import classifier, without_features
from models.explanation.head import Head
from models.manifest import Precision
from models.store import Bundle
from training.errors import DataError

# As in training.deploy.offline.onnx_engine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

Floats = NDArray[np.float32]
ENGINE = f"onnxruntime {onnxruntime.__version__}"


class Backbone:
    """Raises DataError for a bundle without ONNX in this precision, and for a network without a classifier of this
    kind."""

    def __init__(self, bundle: Bundle, precision: Precision = "fp32") -> None:
        try:
            artifact = bundle.artifact(("onnx",), precision)
        except BundleError as error:
            raise DataError(str(error)) from error
        self._model = without_features(onnx.load_model(bundle.path(artifact)))
        self.input, self.output = artifact.input, artifact.output
        found = classifier(self._model)
        if found is None:
            last = next(node for node in self._model.graph.node if self.output in node.output)
            raise DataError(
                f"{bundle.folder}: the network ends in {last.op_type}, not in a classifier of one matrix and one bias: "
                "choose another bundle with --from"
            )
        self._classifier = found

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return session(self._until_classifier().SerializeToString())

    def _until_classifier(self) -> ModelProto:
        """The network whose output is the classifier's input; without the image size, which may differ."""
        model = _copy(self._model)
        _forget_sizes(model)
        del model.graph.output[:]
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(self._classifier.means, onnx.TensorProto.FLOAT, None)
        )
        _prune(model)
        return model

    def compute(self, tensors: Floats) -> Floats:
        """float32 (N, 3, S, S) -> (N, C)"""
        return np.asarray(self._session.run(None, {self.input: tensors})[0], np.float32)

    @cached_property
    def stride(self) -> int:
        """Pixels of the image for each of the last feature map; the image size itself if that is unknown."""
        model = _copy(self._model)
        size = int(model.graph.input[0].type.tensor_type.shape.dim[2].dim_value)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        sides = {value.name: value.type.tensor_type.shape.dim for value in (*inferred.value_info, *inferred.output)}
        dims = sides.get(self._classifier.features or "", ())
        return size // int(dims[2].dim_value) if len(dims) == 4 and dims[2].dim_value else size

    def classifier(self) -> Head:
        """The bundle's own classifier."""
        return self._classifier.head

    def with_head(self, head: Head, size: int) -> ModelProto:
        """The network with this classifier, for images of `size` pixels."""
        model = self._until_classifier()
        for dimension in model.graph.input[0].type.tensor_type.shape.dim[2:]:
            dimension.dim_value = size
        names = ("classifier.weight", "classifier.bias")
        node = onnx.helper.make_node("Gemm", [self._classifier.means, *names], [self.output], transB=1)
        model.graph.node.append(node)
        model.graph.initializer.extend(map(numpy_helper.from_array, (head.weight, head.bias), names))
        result = onnx.helper.make_tensor_value_info(self.output, onnx.TensorProto.FLOAT, ["N", len(head.bias)])
        model.graph.output[0].CopyFrom(result)
        onnx.checker.check_model(model)
        return model


def session(model: bytes) -> onnxruntime.InferenceSession:
    """On the CPU, for photos spread over threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _copy(model: ModelProto) -> ModelProto:
    return ModelProto.FromString(model.SerializeToString())  # type: ignore[no-any-return]


def _prune(model: ModelProto) -> None:
    """Drop the nodes and constants that no output needs."""
    wanted = {output.name for output in model.graph.output}
    for node in reversed(list(model.graph.node)):
        if wanted.isdisjoint(node.output):
            model.graph.node.remove(node)
        else:
            wanted.update(node.input)
    for constant in [one for one in model.graph.initializer if one.name not in wanted]:
        model.graph.initializer.remove(constant)


def _forget_sizes(model: ModelProto) -> None:
    for dimension, name in zip(model.graph.input[0].type.tensor_type.shape.dim, ("N", None, "H", "W"), strict=True):
        if name:
            dimension.dim_param = name
    del model.graph.value_info[:]
