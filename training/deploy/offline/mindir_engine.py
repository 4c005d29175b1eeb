"""Runs a MINDIR file: in MindSpore Lite on Ascend if it is installed, else in MindSpore itself."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.deploy.offline.engine import Engine, batch_and_side
from training.errors import DataError
from training.run.distributed import device


def open_engine(model: Path, target: str, device_id: int) -> Engine:
    """Raises DataError if the file cannot be loaded, DeviceError if the device is missing."""
    if target == "Ascend" and find_spec("mindspore_lite"):
        return _open_in_lite(model, device_id)
    return _open_in_mindspore(model, target, device_id)


def _open_in_lite(model: Path, device_id: int) -> Engine:
    import mindspore_lite as lite

    context = lite.Context()
    context.target = ["ascend"]
    context.ascend.device_id = device_id
    network = lite.Model()
    try:
        network.build_from_file(str(model), lite.ModelType.MINDIR, context)
    except RuntimeError as error:
        raise DataError(f"MindSpore Lite {lite.__version__} cannot load {model}: {error}") from error

    def infer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = network.get_inputs()
        if list(inputs[0].shape) != list(images.shape):
            network.resize(inputs, [list(images.shape)])
        inputs[0].set_data_from_numpy(images)
        return np.array(network.predict(inputs)[0].get_data_to_numpy())

    batch, side = batch_and_side(model, [source.shape for source in network.get_inputs()])
    return Engine(f"MindSpore Lite {lite.__version__} on Ascend {device_id}", batch, side, infer)


def _open_in_mindspore(model: Path, target: str, device_id: int) -> Engine:
    name = device.prepare(target, device_id)
    import mindspore as ms
    from mindspore.train.mind_ir_pb2 import ModelProto

    try:
        network = ms.nn.GraphCell(ms.load(str(model)))
    except RuntimeError as error:
        raise DataError(f"{model} is not a MINDIR file that MindSpore {ms.__version__} can read") from error
    # A loaded graph has no shape for its input, and its convolutions would silently accept images of any size.
    inputs = ModelProto.FromString(model.read_bytes()).graph.input
    batch, side = batch_and_side(model, [source.tensor[0].dims for source in inputs])

    def infer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(network(ms.Tensor(images)).asnumpy())

    return Engine(name, batch, side, infer)
