"""OpenVINO on the CPU. The only module that imports it.

bf16 needs no artifact of its own: it is the fp32 network, multiplied in bf16 by CPUs that can.
"""

from __future__ import annotations

import os
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
import openvino
from openvino.frontend import FrontEndManager

from models.errors import BundleError
from service.engines.artifacts import check_outputs, check_tensors, choose_artifact
from service.engines.runtimes.concurrency import AloneOrShared
from service.errors import EngineUnavailable
from service.machine.features import BF16, cpu_flags

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.manifest import Precision
    from models.store import Bundle
    from service.engines.artifacts import Tensor

# Training and the engine mindspore set this limit for MindSpore's oneDNN. OpenVINO's own oneDNN obeys it too, and then
# answers bf16 requests with no rows.
ONEDNN_ISA = "DNNL_MAX_CPU_ISA"


class OpenVinoEngine:
    name = "openvino"

    def __init__(
        self,
        alone: openvino.CompiledModel,
        shared: openvino.CompiledModel,
        precision: Precision,
        bundle: Bundle,
        gives_features: bool,
    ) -> None:
        """`alone` runs one batch with all threads, `shared` several at the same time."""
        self.precision: Precision = precision
        self.device: str = alone.get_property("EXECUTION_DEVICES")[0]
        self.input_size = bundle.manifest.preprocess.input_size
        self.num_classes = bundle.manifest.network.num_classes
        self.gives_features = gives_features
        request = alone.create_infer_request()
        requests: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(shared.get_property("NUM_STREAMS")):
            requests.put(shared.create_infer_request())
        self._infer = AloneOrShared(partial(_infer, request), partial(_infer_by_one_of, requests))

    @classmethod
    def open(cls, bundle: Bundle, precision: Precision, threads: int, slots: int = 1) -> OpenVinoEngine:
        """For `slots` calls at once; a call that is alone has all the threads.

        Raises BundleError for an artifact that is missing, cannot be loaded or does not fit the manifest;
        EngineUnavailable for bf16 on a CPU without it."""
        artifact = choose_artifact(cls.name, bundle, precision)
        if precision == "bf16":
            _check_bf16()
        path = bundle.path(artifact)
        try:
            # Not Core.read_model: on a corrupt file it would try all of its formats in turn, TensorFlow's among them.
            onnx = FrontEndManager().load_by_framework("onnx")
            model = onnx.convert(onnx.load(str(path)))
            alone = openvino.Core().compile_model(model, "CPU", _config(precision, threads, 1))
            shared = (
                openvino.Core().compile_model(model, "CPU", _config(precision, threads, slots)) if slots > 1 else alone
            )
        except Exception as error:  # its exceptions share no base class but this
            raise BundleError(f"{path} cannot be loaded by OpenVINO: {error}") from error
        size, classes = bundle.manifest.preprocess.input_size, bundle.manifest.network.num_classes
        check_tensors(f"{path} input", _tensors(model.inputs), artifact.input, [3, size, size])
        gives_features = check_outputs(f"{path} output", _tensors(model.outputs), artifact, classes)
        return cls(alone, shared, precision, bundle, gives_features)

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K); blocks, releases the GIL."""
        return self._infer(images, 1)[0]

    def infer_with_features(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """-> also feature maps float32 (N, C, h, w)."""
        logits, features = self._infer(images, 2)
        return logits, features

    def close(self) -> None:
        self._infer.close()


def _infer_by_one_of(
    requests: SimpleQueue[openvino.InferRequest], images: NDArray[np.float32], outputs: int
) -> list[NDArray[np.float32]]:
    request = requests.get()
    try:
        return _infer(request, images, outputs)
    finally:
        requests.put(request)


def _infer(request: openvino.InferRequest, images: NDArray[np.float32], outputs: int) -> list[NDArray[np.float32]]:
    # The request reads the images in place; its answer is its own memory, which the next call overwrites.
    found = request.infer([np.ascontiguousarray(images)], share_inputs=True, share_outputs=True)
    return [np.array(found[index], np.float32) for index in range(outputs)]


def _check_bf16() -> None:
    """Raises EngineUnavailable."""
    if not BF16 & cpu_flags():
        raise EngineUnavailable(
            f"this CPU has no bf16 arithmetic (/proc/cpuinfo names none of "
            f"{', '.join(sorted(BF16))}): give --precision fp32"
        )
    if ONEDNN_ISA in os.environ:
        raise EngineUnavailable(
            f"{ONEDNN_ISA}={os.environ[ONEDNN_ISA]} in the environment disables OpenVINO's bf16: unset it"
        )


def _config(precision: Precision, threads: int, streams: int) -> dict[str, object]:
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        # Always explicit: OpenVINO chooses bf16 by itself if the CPU supports it.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        # Two processes would pin their threads to the same cores.
        "ENABLE_CPU_PINNING": False,
    }


def _tensors(ports: list[openvino.Output]) -> list[Tensor]:
    return [
        (
            port.any_name,
            port.element_type.to_dtype().name,
            [dimension.get_length() if dimension.is_static else "N" for dimension in port.partial_shape],
        )
        for port in ports
    ]
