"""The weights of a bundle, and its network in MindSpore as it is served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import onnx
from mindspore import nn
from numpy.typing import NDArray
from onnx import numpy_helper

from models import golden
from models.errors import BundleError
from models.store import Bundle
from training.data.names import normal_form
from training.errors import CheckpointError
from training.network import repvgg
from training.run.checkpoints import checkpoint
from weights.layout import mismatches
from weights.variants import VARIANTS

Weights = dict[str, NDArray[Any]]


def deploy_network(bundle: Bundle) -> repvgg.RepVGG:
    """The bundle's network in MindSpore. Raises CheckpointError, also if it fails the bundle's golden check."""
    weights, classes = read_weights(bundle), len(bundle.labels)
    variant = VARIANTS[bundle.manifest.network.variant]
    network = checkpoint.build_network(weights, variant, classes, deploy=True, source=bundle.folder)
    try:
        report = golden.check(bundle, "fp32", lambda tensors: network(ms.Tensor(tensors)).asnumpy())
    except BundleError as error:
        raise CheckpointError(str(error)) from error
    if not report.ok:
        raise CheckpointError(
            f"{bundle.folder}: MindSpore's network with its weights differs from its golden logits by "
            f"{report.max_delta:.3g}: the bundle is damaged, or its network is not what the manifest says"
        )
    return network


def read_weights(bundle: Bundle) -> Weights:
    """The deploy form's weights in float32. Raises CheckpointError."""
    variant = VARIANTS[bundle.manifest.network.variant]
    try:
        artifact = bundle.artifact(("onnx", "mindir"), "fp32")
    except BundleError as error:
        raise CheckpointError(f"{error}: training cannot start from rounded weights") from error
    path = bundle.path(artifact)
    if artifact.format == "onnx":
        found = {array.name: numpy_helper.to_array(array) for array in onnx.load_model(path).graph.initializer}
    else:
        found = {parameter.name: parameter.asnumpy() for parameter in nn.GraphCell(ms.load(str(path))).get_parameters()}
    weights = {name: array for name, array in found.items() if name.startswith(("stages.", checkpoint.CLASSIFIER))}
    if problems := mismatches(weights, variant, len(bundle.labels)):
        raise CheckpointError(
            f"{path} does not hold the weights of the network in its manifest:\n  " + "\n  ".join(problems)
        )
    return weights


def class_ids(labels: Sequence[str], classes: Sequence[str]) -> list[int] | None:
    """The bundle's class id of each of our classes; None unless they are the same."""
    ids = {normal_form(label): class_id for class_id, label in enumerate(labels)}
    names = [normal_form(name) for name in classes]
    return [ids[name] for name in names] if ids.keys() == {*names} and len(labels) == len(classes) else None
