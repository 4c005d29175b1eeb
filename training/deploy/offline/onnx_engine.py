"""Runs an ONNX file in ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.deploy.offline.engine import Engine, batch_and_side
from training.errors import DataError, DeviceError

# ONNX Runtime 1.32 sends telemetry by default; it reads this variable when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

PROVIDERS = {"CPU": "CPUExecutionProvider", "GPU": "CUDAExecutionProvider", "Ascend": "CANNExecutionProvider"}


def open_engine(model: Path, target: str, device_id: int) -> Engine:
    """Raises DataError if the file cannot be loaded, DeviceError if the device is missing."""
    provider = PROVIDERS[target]
    device = {} if target == "CPU" else {"device_id": device_id}
    if provider not in onnxruntime.get_available_providers():
        raise DeviceError(f"this ONNX Runtime has no {provider}: device_target {target} needs a different build of it")
    try:
        session = onnxruntime.InferenceSession(str(model), providers=[(provider, device)])
    except Exception as error:  # its exceptions have no other common base class
        raise DataError(f"ONNX Runtime cannot load {model}: {error}") from error
    if session.get_providers()[0] != provider:  # it falls back to the CPU with only a warning
        raise DeviceError(f"ONNX Runtime cannot use {target} {device_id}; see its warnings above")
    inputs = session.get_inputs()
    batch, side = batch_and_side(model, [source.shape for source in inputs])

    def infer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run(None, {inputs[0].name: images})[0], np.float32)

    return Engine(f"ONNX Runtime {onnxruntime.__version__} on {target}", batch, side, infer)
