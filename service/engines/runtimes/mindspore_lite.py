"""MindSpore Lite on the CPU, or on an Ascend 310 or 310P. The only engine module that imports it.

An artifact takes any batch size, or only the sizes that it was built for. With fixed sizes a batch is padded with black
images to the next size, and a batch larger than the largest size is split.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import mindspore_lite
import numpy as np

from models.errors import BundleError
from service.errors import EngineUnavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.manifest import Artifact, Precision
    from models.store import Bundle

# device -> the artifacts that it can load, the best first. `mindir` needs a Lite about as new as the MindSpore that
# wrote it.
FORMATS = {
    "cpu": ("lite-mindir", "mindir"),
    "ascend310": ("lite-mindir-ascend310", "lite-mindir", "mindir"),
    "ascend310p": ("lite-mindir-ascend310p", "lite-mindir", "mindir"),
}
ASCEND_PRECISION = {"fp32": "enforce_fp32", "fp16": "enforce_fp16"}


class MindSporeLiteEngine:
    name = "mindspore-lite"

    def __init__(self, model: mindspore_lite.Model, artifact: Artifact, bundle: Bundle, device: str) -> None:
        self.device = device
        self.precision: Precision = artifact.precision
        self.input_size = bundle.manifest.preprocess.input_size
        self.num_classes = bundle.manifest.network.num_classes
        self._model = model  # type: mindspore_lite.Model | None
        self._sizes = None if artifact.batch == "dynamic" else sorted(artifact.batch)
        self._images = np.empty(0, np.float32)
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, bundle: Bundle, precision: Precision, threads: int, device: str = "cpu", device_id: int = 0
    ) -> MindSporeLiteEngine:
        """Raises BundleError for an artifact that is missing, cannot be loaded or does not fit the manifest,
        EngineUnavailable for an Ascend device that cannot be used."""
        artifact = bundle.artifact(FORMATS[device], precision)
        model = mindspore_lite.Model()
        try:
            model.build_from_file(
                str(bundle.path(artifact)),
                mindspore_lite.ModelType.MINDIR,
                _context(device, device_id, precision, threads),
            )
        except RuntimeError as error:  # the text is just "Common error code."; the reason is in Lite's own log
            raise _load_error(bundle, artifact, device, device_id) from error
        _check_input(model, artifact, bundle)
        return cls(model, artifact, bundle, device if device == "cpu" else f"{device}:{device_id}")

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K); blocks, releases the GIL."""
        with self._lock:
            if self._sizes is None:
                return self._predict(images)
            largest = self._sizes[-1]
            parts = [images[start : start + largest] for start in range(0, len(images), largest)]
            return np.concatenate([self._predict(self._padded(part))[: len(part)] for part in parts])

    def _padded(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Padded to the next batch size."""
        assert self._sizes is not None
        missing = next(size for size in self._sizes if size >= len(images)) - len(images)
        if not missing:
            return images
        return np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.float32)])

    def _predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._model is None:
            raise RuntimeError("the engine is closed")
        inputs = self._model.get_inputs()
        if inputs[0].shape != list(images.shape):
            self._model.resize(inputs, [list(images.shape)])
            inputs = self._model.get_inputs()
        # Lite reads the array in place, and a resize may read it once more.
        self._images = np.ascontiguousarray(images, np.float32)
        inputs[0].set_data_from_numpy(self._images)
        return np.array(self._model.predict(inputs)[0].get_data_to_numpy(), np.float32)

    def close(self) -> None:
        self._model = None


def _context(device: str, device_id: int, precision: str, threads: int) -> mindspore_lite.Context:
    context = mindspore_lite.Context()
    context.cpu.thread_num = threads
    context.cpu.inter_op_parallel_num = 1
    context.cpu.precision_mode = "enforce_fp32"
    context.target = ["cpu" if device == "cpu" else "ascend"]
    if device != "cpu":
        context.ascend.device_id = device_id
        context.ascend.precision_mode = ASCEND_PRECISION[precision]
    return context


def _load_error(bundle: Bundle, artifact: Artifact, device: str, device_id: int) -> Exception:
    path, lite = bundle.path(artifact), "MindSpore Lite " + mindspore_lite.__version__
    if device != "cpu":
        return EngineUnavailable(
            f"{lite} cannot load {path} on {device}, device id {device_id}: read its lines in the log, and check that "
            "the device is present (npu-smi info) and that CANN's set_env.sh was sourced"
        )
    if artifact.format == "mindir":
        return BundleError(
            f"{path} was written by {bundle.manifest.training.framework}, and {lite} cannot load it, because it does "
            "not read the MINDIR of a newer MindSpore: convert the bundle with "
            "python -m training.lite --bundle BUNDLE --out NEW_BUNDLE --lite-python PYTHON"
        )
    return BundleError(f"{path} cannot be loaded by {lite}; its lines in the log say why")


def _check_input(model: mindspore_lite.Model, artifact: Artifact, bundle: Bundle) -> None:
    """One tensor with the manifest's name, float32, images of this shape; else BundleError."""
    size = bundle.manifest.preprocess.input_size
    found = [(tensor.name, tensor.dtype.name, tensor.shape[1:]) for tensor in model.get_inputs()]
    if found != [(artifact.input, "FLOAT32", [3, size, size])]:
        raise BundleError(
            f"{bundle.path(artifact)} has the inputs {found}; the manifest wants one, {artifact.input!r}, "
            f"FLOAT32 of the shape {['N', 3, size, size]}"
        )
