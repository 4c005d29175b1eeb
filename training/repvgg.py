"""RepVGG in MindSpore: the train form (three branches a block) and the deploy form (one convolution a block).

Architecture: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, tables 2 and 3.
Names of weights: `stages.S.B.branch_3x3.conv.weight` ... in the train form, `stages.S.B.conv.weight` in the
deploy form, `classifier.weight`; `training.fuse` turns the one into the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import mindspore as ms
from mindspore import Tensor, mint, nn
from mindspore.common.initializer import HeNormal, Normal, initializer

BATCH_NORM_EPS = 1e-5
BATCH_NORM_MOMENTUM = 0.9  # MindSpore counts the share that is kept; other frameworks call this 0.1


@dataclass(frozen=True)
class Variant:
    """`widths` and `depths` of the stages; stage 0 is the stem's single block.

    `groups` is that of every second block (the paper's g2 and g4: indices 2, 4, 6... counted from the stem);
    `strides` are those of each stage's first block.
    """

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int, int]
    groups: int = 1
    squeeze_excite: bool = False
    strides: tuple[int, int, int, int, int] = (2, 2, 2, 2, 2)


def _scaled(depths: tuple[int, int, int, int], a: float, b: float, groups: int = 1, se: bool = False) -> Variant:
    """The paper's scaling: widths 64a, 128a, 256a, 512b after a stem of min(64, 64a)."""
    widths = (min(64, int(64 * a)), int(64 * a), int(128 * a), int(256 * a), int(512 * b))
    return Variant(widths, (1, *depths), groups, se)


_A, _B, _D = (2, 4, 14, 1), (4, 6, 16, 1), (8, 14, 24, 1)

VARIANTS: dict[str, Variant] = {
    "RepVGG-A0": _scaled(_A, 0.75, 2.5),
    "RepVGG-A1": _scaled(_A, 1.0, 2.5),
    "RepVGG-A2": _scaled(_A, 1.5, 2.75),
    "RepVGG-B0": _scaled(_B, 1.0, 2.5),
    "RepVGG-B1": _scaled(_B, 2.0, 4.0),
    "RepVGG-B1g2": _scaled(_B, 2.0, 4.0, groups=2),
    "RepVGG-B1g4": _scaled(_B, 2.0, 4.0, groups=4),
    "RepVGG-B2": _scaled(_B, 2.5, 5.0),
    "RepVGG-B2g2": _scaled(_B, 2.5, 5.0, groups=2),
    "RepVGG-B2g4": _scaled(_B, 2.5, 5.0, groups=4),
    "RepVGG-B3": _scaled(_B, 3.0, 5.0),
    "RepVGG-B3g2": _scaled(_B, 3.0, 5.0, groups=2),
    "RepVGG-B3g4": _scaled(_B, 3.0, 5.0, groups=4),
    "RepVGG-D2se": _scaled(_D, 2.5, 5.0, se=True),
    # Ours, for images of 32x32: the stem halves them once, the last map is 4x4; 36 million multiply-adds.
    "RepVGG-Tiny": Variant((32, 64, 128, 256, 256), (1, 1, 2, 1, 1), strides=(2, 1, 2, 2, 1)),
}


class ConvBatchNorm(nn.Cell):  # type: ignore[misc]
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, groups: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, pad_mode="pad", padding=padding, group=groups
        )
        self.bn = _batch_norm(out_channels)

    def construct(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class SqueezeExcite(nn.Cell):  # type: ignore[misc]
    """Channel attention (Hu et al. 2018) with a 16th of the channels inside, as RepVGG-D2se uses it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 16, 1, has_bias=True)
        self.up = nn.Conv2d(channels // 16, channels, 1, has_bias=True)

    def construct(self, x: Tensor) -> Tensor:
        weights = x.mean((2, 3), keep_dims=True)
        return x * mint.sigmoid(self.up(mint.nn.functional.relu(self.down(weights))))


class TrainBlock(nn.Cell):  # type: ignore[misc]
    """ReLU(SE(3x3 branch + 1x1 branch + identity branch)), each branch with its own batch norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int, squeeze_excite: bool) -> None:
        super().__init__()
        self.branch_3x3 = ConvBatchNorm(in_channels, out_channels, 3, stride, groups)
        self.branch_1x1 = ConvBatchNorm(in_channels, out_channels, 1, stride, groups)
        keeps_shape = in_channels == out_channels and stride == 1
        self.branch_identity = _batch_norm(in_channels) if keeps_shape else None
        self.squeeze_excite = SqueezeExcite(out_channels) if squeeze_excite else None
        self.relu = nn.ReLU()

    def construct(self, x: Tensor) -> Tensor:
        y = self.branch_3x3(x) + self.branch_1x1(x)
        if self.branch_identity is not None:
            y = y + self.branch_identity(x)
        if self.squeeze_excite is not None:
            y = self.squeeze_excite(y)
        return self.relu(y)


class DeployBlock(nn.Cell):  # type: ignore[misc]
    """ReLU(SE(3x3 convolution with bias)): what a TrainBlock becomes when it is fused."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int, squeeze_excite: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, 3, stride, pad_mode="pad", padding=1, group=groups, has_bias=True
        )
        self.squeeze_excite = SqueezeExcite(out_channels) if squeeze_excite else None
        self.relu = nn.ReLU()

    def construct(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.squeeze_excite is not None:
            y = self.squeeze_excite(y)
        return self.relu(y)


class RepVGG(nn.Cell):  # type: ignore[misc]
    """float32 (N, 3, H, W) -> logits (N, num_classes)."""

    def __init__(self, variant: Variant, num_classes: int, *, deploy: bool = False) -> None:
        super().__init__()
        block = DeployBlock if deploy else TrainBlock
        stages, in_channels, index = [], 3, 0
        for width, depth, first_stride in zip(variant.widths, variant.depths, variant.strides, strict=True):
            blocks = []
            for position in range(depth):
                stride = first_stride if position == 0 else 1
                groups = variant.groups if index > 0 and index % 2 == 0 else 1
                blocks.append(block(in_channels, width, stride, groups, variant.squeeze_excite))
                in_channels, index = width, index + 1
            stages.append(nn.SequentialCell(blocks))
        self.stages = nn.SequentialCell(stages)
        self.classifier = nn.Dense(in_channels, num_classes)
        self._initialise()

    def construct(self, x: Tensor) -> Tensor:
        return self.classifier(self.stages(x).mean((2, 3)))

    def _initialise(self) -> None:
        for _, cell in self.cells_and_names():
            if isinstance(cell, nn.Conv2d):
                weight = cell.weight
                weight.set_data(initializer(HeNormal(mode="fan_out", nonlinearity="relu"), weight.shape, weight.dtype))
            elif isinstance(cell, nn.Dense):
                cell.weight.set_data(initializer(Normal(0.01), cell.weight.shape, cell.weight.dtype))


def build(arch: str, num_classes: int, *, deploy: bool = False) -> RepVGG:
    """A network of VARIANTS with fresh weights; raises KeyError for an unknown `arch`."""
    return RepVGG(VARIANTS[arch], num_classes, deploy=deploy)


def weights(network: nn.Cell) -> dict[str, ms.Parameter]:
    """Name -> parameter, the batch norms' moving statistics included."""
    return dict(network.parameters_and_names())


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
