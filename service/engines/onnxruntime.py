"""ONNX Runtime on the CPU. The only module that imports it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from models.errors import BundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.manifest import Artifact, Precision
    from models.store import Bundle

# ONNX Runtime 1.32 sends telemetry by default, and reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime


class OnnxRuntimeEngine:
    name = "onnxruntime"

    def __init__(self, session: onnxruntime.InferenceSession, artifact: Artifact, bundle: Bundle) -> None:
        self.precision: Precision = artifact.precision
        self.input_size = bundle.manifest.preprocess.input_size
        self.num_classes = bundle.manifest.network.num_classes
        self._session: onnxruntime.InferenceSession | None = session
        self._input, self._output = artifact.input, artifact.output

    @classmethod
    def open(cls, bundle: Bundle, precision: Precision, threads: int) -> OnnxRuntimeEngine:
        """Raises BundleError for an artifact that is not there, cannot be loaded or does not fit the manifest."""
        artifact = bundle.artifact(("onnx",), precision)
        path = bundle.path(artifact)
        try:
            session = onnxruntime.InferenceSession(
                str(path), sess_options=_options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class but this
            raise BundleError(f"{path} cannot be loaded by ONNX Runtime: {error}") from error
        size, classes = bundle.manifest.preprocess.input_size, bundle.manifest.network.num_classes
        _check(f"{path} input", session.get_inputs(), artifact.input, [3, size, size])
        _check(f"{path} output", session.get_outputs(), artifact.output, [classes])
        return cls(session, artifact, bundle)

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K); blocks, releases the GIL."""
        if self._session is None:
            raise RuntimeError("the engine is closed")
        (logits,) = self._session.run([self._output], {self._input: images})
        return np.asarray(logits, np.float32)

    def close(self) -> None:
        self._session = None


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return options


def _check(what: str, tensors: list[onnxruntime.NodeArg], name: str, image_shape: list[int]) -> None:
    """One tensor, with the manifest's name, float32, any number of images of this shape; else BundleError."""
    found = [(tensor.name, tensor.type, tensor.shape) for tensor in tensors]
    if len(tensors) == 1:
        tensor = tensors[0]
        any_batch = bool(tensor.shape) and not isinstance(tensor.shape[0], int)
        if tensor.name == name and tensor.type == "tensor(float)" and any_batch and tensor.shape[1:] == image_shape:
            return
    raise BundleError(
        f"{what} is {found}; the manifest wants one tensor(float) {name!r} of shape {['N', *image_shape]}"
    )
