"""ONNX Runtime. The only module that imports it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleError
from models.manifest import Artifact, Precision
from models.store import Bundle
from service.engines.base import CPU, Capabilities, Options
from service.errors import EngineUnavailable

# ONNX Runtime 1.32 sends telemetry by default, and reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

# Ours -> ONNX Runtime's name of an execution provider.
PROVIDERS = {
    CPU: "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "cann": "CANNExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}


class OnnxRuntimeEngine:
    capabilities = Capabilities(
        formats=("onnx",),
        precisions={"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
        providers=tuple(PROVIDERS),
    )
    name = "onnxruntime"

    def __init__(self, session: onnxruntime.InferenceSession, artifact: Artifact, bundle: Bundle) -> None:
        self.precision: Precision = artifact.precision
        self.device: str = session.get_providers()[0]
        # The others search the best convolution, or build an engine, for a shape that is new to them.
        self.new_batch_sizes_cost = self.device != PROVIDERS[CPU]
        self.input_size = bundle.manifest.preprocess.input_size
        self.num_classes = bundle.manifest.network.num_classes
        self._session: onnxruntime.InferenceSession | None = session
        self._input, self._output = artifact.input, artifact.output

    @classmethod
    def open(cls, bundle: Bundle, precision: Precision, options: Options) -> OnnxRuntimeEngine:
        """Raises BundleError for an artifact that is not there, cannot be loaded or does not fit the manifest;
        EngineUnavailable for a provider that is not in this build or cannot be started."""
        artifact = cls.capabilities.artifact(cls.name, bundle, precision)
        path = bundle.path(artifact)
        session = _session(path, options)
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


def _session(path: Path, options: Options) -> onnxruntime.InferenceSession:
    provider = PROVIDERS[options.provider]
    present = onnxruntime.get_available_providers()
    if provider not in present:
        known = ", ".join(name for name, long_name in PROVIDERS.items() if long_name in present)
        raise EngineUnavailable(
            f"this build of ONNX Runtime has no provider {options.provider}; it has: {known}. "
            "Other builds of onnxruntime bring others, onnxruntime-gpu for instance cuda and tensorrt"
        )
    # What a device has no kernel for runs on the CPU.
    wanted = list(dict.fromkeys((provider, PROVIDERS[CPU])))
    try:
        session = onnxruntime.InferenceSession(str(path), sess_options=_session_options(options), providers=wanted)
    except Exception as error:  # its exceptions share no base class but this
        raise BundleError(f"{path} cannot be loaded by ONNX Runtime: {error}") from error
    # A provider whose libraries or device are missing is left out with a warning, and the CPU would serve silently.
    if session.get_providers()[0] != provider:
        raise EngineUnavailable(
            f"ONNX Runtime cannot start its provider {options.provider} here (its warning above says why): are driver "
            "and libraries of the device installed?"
        )
    return session


def _session_options(options: Options) -> onnxruntime.SessionOptions:
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    session_options.inter_op_num_threads = 1
    session_options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return session_options


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
