"""ONNX Runtime. The only module that imports it."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from models.errors import BundleError
from service.engines.artifacts import check_outputs, check_tensors, choose_artifact
from service.engines.runtimes.concurrency import AloneOrShared
from service.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.manifest import Artifact, Precision
    from models.store import Bundle
    from service.engines.artifacts import Tensor

# ONNX Runtime 1.32 sends telemetry by default, and reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

# Ours -> ONNX Runtime's name of an execution provider.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "cann": "CANNExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}


class OnnxRuntimeEngine:
    name = "onnxruntime"

    def __init__(
        self,
        alone: onnxruntime.InferenceSession,
        shared: onnxruntime.InferenceSession,
        artifact: Artifact,
        bundle: Bundle,
        gives_features: bool,
    ) -> None:
        """`alone` runs one batch with all threads, `shared` several at the same time."""
        self.precision: Precision = artifact.precision
        self.device: str = alone.get_providers()[0]
        self.input_size = bundle.manifest.preprocess.input_size
        self.num_classes = bundle.manifest.network.num_classes
        self.gives_features = gives_features
        outputs = [node.name for node in alone.get_outputs()]
        names = artifact.input, outputs
        self._infer = AloneOrShared(partial(_infer, alone, *names), partial(_infer, shared, *names))

    @classmethod
    def open(
        cls, bundle: Bundle, precision: Precision, threads: int, provider: str = "cpu", slots: int = 1
    ) -> OnnxRuntimeEngine:
        """For `slots` calls at once. On the CPU a call that is alone has all the threads, else they are divided.

        Raises BundleError for an artifact that is missing, cannot be loaded or does not fit the manifest,
        EngineUnavailable for a provider that is not in this build or cannot be started."""
        artifact = choose_artifact(cls.name, bundle, precision)
        path = bundle.path(artifact)
        alone = _session(path, threads, provider)
        splits = provider == "cpu" and slots > 1
        shared = _session(path, max(1, threads // slots), provider) if splits else alone
        size, classes = bundle.manifest.preprocess.input_size, bundle.manifest.network.num_classes
        check_tensors(f"{path} input", _tensors(alone.get_inputs()), artifact.input, [3, size, size])
        gives_features = check_outputs(f"{path} output", _tensors(alone.get_outputs()), artifact, classes)
        return cls(alone, shared, artifact, bundle, gives_features)

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K); blocks, releases the GIL."""
        return self._infer(images, 1)[0]

    def infer_with_features(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """-> also feature maps float32 (N, C, h, w)."""
        logits, features = self._infer(images, 2)
        return logits, features

    def close(self) -> None:
        self._infer.close()


def _infer(
    session: onnxruntime.InferenceSession,
    input_name: str,
    output_names: Sequence[str],
    images: NDArray[np.float32],
    outputs: int,
) -> list[NDArray[np.float32]]:
    found = session.run(output_names[:outputs], {input_name: images})
    return [np.asarray(output, np.float32) for output in found]


def _session(path: Path, threads: int, provider: str) -> onnxruntime.InferenceSession:
    wanted, present = PROVIDERS[provider], onnxruntime.get_available_providers()
    if wanted not in present:
        known = ", ".join(name for name, long_name in PROVIDERS.items() if long_name in present)
        raise EngineUnavailable(
            f"this build of ONNX Runtime has no provider {provider}; it has: {known}. Other builds have others: "
            "onnxruntime-gpu cuda and tensorrt, onnxruntime-cann cann, onnxruntime-openvino openvino"
        )
    if provider in ("cuda", "tensorrt"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN, where they are installed as Python packages
    # Operators for which the device has no kernel run on the CPU.
    providers = list(dict.fromkeys((wanted, PROVIDERS["cpu"])))
    try:
        session = onnxruntime.InferenceSession(
            str(path), sess_options=_options(threads), providers=providers, provider_options=_tuned(providers)
        )
    except Exception as error:  # its exceptions share no base class but this
        raise BundleError(f"{path} cannot be loaded by ONNX Runtime: {error}") from error
    # A provider whose libraries or device are missing is left out with a warning, and the CPU would serve silently.
    if session.get_providers()[0] != wanted:
        raise EngineUnavailable(
            f"ONNX Runtime cannot start its provider {provider} here; its warning above says why: are the device, its "
            "driver and its libraries installed?"
        )
    return session


def _tuned(providers: list[str]) -> list[dict[str, str]]:
    # CUDA's default tries all of cuDNN's convolutions whenever it sees a new batch size.
    tuned = {PROVIDERS["cuda"]: {"cudnn_conv_algo_search": "HEURISTIC"}}
    return [tuned.get(provider, {}) for provider in providers]


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the CPU from those that decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return options


def _tensors(nodes: list[onnxruntime.NodeArg]) -> list[Tensor]:
    return [
        (
            node.name,
            "float32" if node.type == "tensor(float)" else node.type,
            [length if isinstance(length, int) else "N" for length in node.shape],
        )
        for node in nodes
    ]
