"""The teacher of a run: a bundle's network that sees the same augmented batches as the student.

1. it sees images as it was trained on: with its own mean, deviation and image size, whatever the run's are;
2. its answers are in the order of the run's classes, which must be its own;
3. it never learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from models.store import Bundle
from training.config import TrainConfig
from training.data import bundles
from training.data.names import listed
from training.errors import ConfigError
from training.run.bundled.networks import class_ids, deploy_network
from weights.variants import VARIANTS


class Teacher(nn.Cell):  # type: ignore[misc]
    """Images (N, 3, S, S) as the run normalises them -> logits (N, K) in the order of the run's classes."""

    def __init__(self, network: nn.Cell, bundle: Bundle, config: TrainConfig, order: Sequence[int]) -> None:
        super().__init__()
        spec = bundle.manifest.preprocess
        own, ours = (np.array([one.mean, one.std], np.float32) for one in (spec, config))
        self.factor = Tensor((ours[1] / own[1]).reshape(1, 3, 1, 1))
        self.shift = Tensor(((ours[0] - own[0]) / own[1]).reshape(1, 3, 1, 1))
        self.size, self.order = spec.input_size, Tensor(list(order), ms.int32)
        self.network = network
        for parameter in network.get_parameters():
            parameter.requires_grad = False

    def construct(self, images: Tensor) -> Tensor:
        pixels = images * self.factor + self.shift
        if pixels.shape[-1] != self.size:
            pixels = ops.interpolate(pixels, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return ops.stop_gradient(ops.gather(ops.cast(self.network(pixels), ms.float32), self.order, 1))


def find(config: TrainConfig, classes: Sequence[str]) -> Teacher | None:
    """The recipe's teacher, if it has one. Raises ConfigError, CheckpointError."""
    if config.teacher is None:
        return None
    bundle = bundles.find(Path(config.teacher))
    if bundle is None:
        raise ConfigError(f"teacher: {config.teacher} is a file, not a bundle: training.export --bundle makes one")
    if (variant := bundle.manifest.network.variant) not in VARIANTS:
        raise ConfigError(f"teacher: {bundle.folder} is a {variant}; only the RepVGG family can be built in training")
    order = class_ids(bundle.labels, classes)
    if order is None:
        raise ConfigError(
            f"teacher: {bundle.folder} knows {listed(bundle.labels)}, the images show {listed(classes)}: a teacher "
            "must know the same classes"
        )
    return Teacher(deploy_network(bundle), bundle, config, order)
