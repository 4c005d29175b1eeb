"""A deploy network -> the content of a model file, checked against the logits of the network itself.

An exported model whose logits differ from the network's is an error; it is never written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import onnx
from mindspore import nn
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from models.explanation.features import Explained, explained
from models.explanation.head import tolerance
from training.errors import TrainingError

INPUT, OUTPUT = "image", "logits"
FP32_TOLERANCE = 1e-3

Exporter = Callable[[nn.Cell, NDArray[np.float32], NDArray[np.float32]], bytes]


def compute_logits(network: nn.Cell, tensors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 3, S, S) -> (N, K), one image at a time, as in a golden check."""
    return np.concatenate([network(ms.Tensor(tensor[None])).asnumpy() for tensor in tensors])


def export_onnx(network: nn.Cell, tensors: NDArray[np.float32], logits: NDArray[np.float32]) -> bytes:
    """The network as ONNX with a symbolic batch size.

    Raises TrainingError if ONNX's reference evaluator does not turn `tensors` (N, 3, S, S) into `logits` (N, K).
    """
    model = to_onnx(network, tensors)
    found: Any = ReferenceEvaluator(model).run(None, {INPUT: tensors})
    _check_logits("ONNX", found[0], logits)
    return model.SerializeToString()  # type: ignore[no-any-return]


def export_explained(network: nn.Cell, tensors: NDArray[np.float32], logits: NDArray[np.float32]) -> Explained:
    """As `export_onnx`, with the last feature map as a second output. Raises TrainingError also if that does not give
    the logits."""
    found = explained(to_onnx(network, tensors))
    if found is None:
        raise TrainingError("the exported ONNX does not end in a mean over the image and a matrix")
    outputs: Any = ReferenceEvaluator(found.model).run(None, {INPUT: tensors})
    _check_logits("ONNX", outputs[0], logits)
    if not (delta := found.head.delta(outputs[1], outputs[0])) <= tolerance(outputs[0]):
        raise TrainingError(f"the exported feature map gives logits that are {delta:.3g} off")
    return found


def to_onnx(network: nn.Cell, tensors: NDArray[np.float32]) -> onnx.ModelProto:
    """With a symbolic batch size; `tensors` (N, 3, S, S) give the example."""
    axes = {INPUT: {0: "N"}, OUTPUT: {0: "N"}}
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/model.onnx"
        example, names = ms.Tensor(tensors[:1]), {"input_names": [INPUT], "output_names": [OUTPUT]}
        ms.onnx.export(network, example, file_name=file, dynamic_axes=axes, **names)
        model = onnx.load_model(file)
    # MindSpore 2.10 makes the batch size of the input symbolic, but the output keeps the 1 of the example.
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.checker.check_model(model, full_check=True)
    return model


def export_mindir(network: nn.Cell, tensors: NDArray[np.float32], logits: NDArray[np.float32]) -> bytes:
    """The network as MINDIR with a dynamic batch size, checked as in `export_onnx` but with MindSpore's own runtime."""
    example = ms.Tensor(shape=[None, *tensors.shape[1:]], dtype=ms.float32)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/model.mindir"
        ms.export(network, example, file_name=file, file_format="MINDIR")
        found = nn.GraphCell(ms.load(file))(ms.Tensor(tensors)).asnumpy()
        content = Path(file).read_bytes()
    _check_logits("MINDIR", found, logits)
    return content


def export_air(network: nn.Cell, tensors: NDArray[np.float32], _: NDArray[np.float32]) -> bytes:
    """The network as AIR for batches of one image; Ascend only. Not checked: MindSpore writes AIR but cannot run it."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/model.air"
        ms.export(network, ms.Tensor(tensors[:1]), file_name=file, file_format="AIR")
        return Path(file).read_bytes()


EXPORTERS: dict[str, Exporter] = {"MINDIR": export_mindir, "ONNX": export_onnx, "AIR": export_air}


def _check_logits(name: str, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    delta = float(np.max(np.abs(found - expected)))
    if not delta <= FP32_TOLERANCE:  # also true for NaN
        raise TrainingError(f"the exported {name} differs from the network: largest logit difference {delta:.3g}")
