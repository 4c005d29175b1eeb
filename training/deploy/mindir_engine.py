"""A MINDIR file for offline inference: on Ascend by MindSpore Lite where it is installed, else by MindSpore itself."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.deploy.offline import Engine, batch_and_side
from training.errors import DataError
from training.run import device


def open_engine(model: Path, target: str, device_id: int) -> Engine:
    """Raises DataError for a file that is no such network, DeviceError for a device that is not there."""
    if target == "Ascend" and find_spec("mindspore_lite"):
        return _lite(model, device_id)
    return _mindspore(model, target, device_id)


def _lite(model: Path, device_id: int) -> Engine:
    import mindspore_lite as lite

    context = lite.Context()
    context.target = ["ascend"]
    context.ascend.device_id = device_id
    network = lite.Model()
    try:
        network.build_from_file(str(model), lite.ModelType.MINDIR, context)
    except RuntimeError as error:
        raise DataError(f"{model} cannot be loaded by MindSpore Lite {lite.__version__}: {error}") from error

    def infer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = network.get_inputs()
        if list(inputs[0].shape) != list(images.shape):
            network.resize(inputs, [list(images.shape)])
        inputs[0].set_data_from_numpy(images)
        return np.array(network.predict(inputs)[0].get_data_to_numpy())

    batch, side = batch_and_side(model, [source.shape for source in network.get_inputs()])
    return Engine(f"MindSpore Lite {lite.__version__} on Ascend {device_id}", batch, side, infer)


def _mindspore(model: Path, target: str, device_id: int) -> Engine:
    name = device.prepare(target, device_id)
    import mindspore as ms
    from mindspore.train.mind_ir_pb2 import ModelProto

    try:
        network = ms.nn.GraphCell(ms.load(str(model)))
    except RuntimeError as error:
        raise DataError(f"{model} is no MINDIR file that MindSpore {ms.__version__} can read") from error
    # A loaded graph does not tell its input's shape, and convolutions take any side without a word.
    inputs = ModelProto.FromString(model.read_bytes()).graph.input
    batch, side = batch_and_side(model, [source.tensor[0].dims for source in inputs])

    def infer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(network(ms.Tensor(images)).asnumpy())

    return Engine(name, batch, side, infer)
