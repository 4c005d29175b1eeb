"""RepVGG in MindSpore: the train forms (three branches per block), the deploy form (one convolution per block), and
that with batch norms, for fine-tuning.

Names of weights: `stages.S.B.branch_3x3.conv.weight` etc. in a train form, `stages.S.B.conv.weight` in the others, and
`classifier.weight` in all. `weights.fuse` turns weights of all forms into the deploy form.
"""

from __future__ import annotations

from collections.abc import Iterator

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint, nn
from mindspore.common.initializer import HeNormal, Normal, initializer
from numpy.typing import NDArray

from weights.variants import VARIANTS, Variant

BATCH_NORM_EPS = 1e-5
BATCH_NORM_MOMENTUM = 0.9  # in MindSpore the share that is kept; other frameworks write 0.1 for the same


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
    """Channel attention (Hu et al. 2018) with a reduction to a 16th of the channels, as in RepVGG-D2se."""

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

    def batch_norm_inputs(self, x: Tensor) -> dict[str, NDArray[np.float32]]:
        """Name of each batch norm -> its input (N, C, H, W), where `x` is the block's."""
        inputs = {f"{name}.bn": getattr(self, name).conv(x).asnumpy() for name in ("branch_3x3", "branch_1x1")}
        return inputs if self.branch_identity is None else inputs | {"branch_identity": x.asnumpy()}


class QATrainBlock(nn.Cell):  # type: ignore[misc]
    """ReLU(SE(batch norm(3x3 branch + 1x1 convolution + input))); only the 3x3 branch has a batch norm of its own.

    QARepVGG: Chu et al., "Make RepVGG Greater Again", AAAI 2024, figure 1; QARepVGGBlockV2 in the authors' code. Their
    code applies SE before the last batch norm, which then cannot be fused into the convolution; here SE comes last, as
    in RepVGG.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int, squeeze_excite: bool) -> None:
        super().__init__()
        self.branch_3x3 = ConvBatchNorm(in_channels, out_channels, 3, stride, groups)
        self.branch_1x1 = nn.Conv2d(in_channels, out_channels, 1, stride, pad_mode="pad", group=groups)
        self.keeps_shape = in_channels == out_channels and stride == 1
        self.bn = _batch_norm(out_channels)
        self.squeeze_excite = SqueezeExcite(out_channels) if squeeze_excite else None
        self.relu = nn.ReLU()

    def construct(self, x: Tensor) -> Tensor:
        y = self.branch_3x3(x) + self.branch_1x1(x)
        if self.keeps_shape:
            y = y + x
        y = self.bn(y)
        if self.squeeze_excite is not None:
            y = self.squeeze_excite(y)
        return self.relu(y)

    def batch_norm_inputs(self, x: Tensor) -> dict[str, NDArray[np.float32]]:
        """Name of each batch norm -> its input (N, C, H, W), where `x` is the block's."""
        total = self.branch_3x3(x).asnumpy() + self.branch_1x1(x).asnumpy()
        return {
            "branch_3x3.bn": self.branch_3x3.conv(x).asnumpy(),
            "bn": total + x.asnumpy() if self.keeps_shape else total,
        }


class DeployBlock(nn.Cell):  # type: ignore[misc]
    """ReLU(SE(3x3 convolution with bias)): the result of fusing either train block."""

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


class NormedBlock(nn.Cell):  # type: ignore[misc]
    """ReLU(SE(batch norm(3x3 convolution))): the deploy block in training. The batch norm lets a kernel move far at a
    rate at which kernels alone destroy each other's work."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int, squeeze_excite: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, pad_mode="pad", padding=1, group=groups)
        self.bn = _batch_norm(out_channels)
        self.squeeze_excite = SqueezeExcite(out_channels) if squeeze_excite else None
        self.relu = nn.ReLU()

    def construct(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        if self.squeeze_excite is not None:
            y = self.squeeze_excite(y)
        return self.relu(y)

    def batch_norm_inputs(self, x: Tensor) -> dict[str, NDArray[np.float32]]:
        """Name of the batch norm -> its input (N, C, H, W), where `x` is the block's."""
        return {"bn": self.conv(x).asnumpy()}


TRAIN_BLOCKS = {"repvgg": TrainBlock, "qarepvgg": QATrainBlock}


class RepVGG(nn.Cell):  # type: ignore[misc]
    """float32 (N, 3, H, W) -> logits (N, num_classes)."""

    def __init__(self, variant: Variant, num_classes: int, *, deploy: bool = False, normed: bool = False) -> None:
        super().__init__()
        block = NormedBlock if normed else DeployBlock if deploy else TRAIN_BLOCKS[variant.block]
        stages: list[list[nn.Cell]] = [[] for _ in variant.widths]
        for at in variant.blocks():
            cell = block(at.in_channels, at.out_channels, at.stride, at.groups, variant.squeeze_excite)
            stages[at.stage].append(cell)
        self.stages = nn.SequentialCell([nn.SequentialCell(blocks) for blocks in stages])
        self.classifier = nn.Dense(variant.widths[-1], num_classes)
        self._initialise()

    def construct(self, x: Tensor) -> Tensor:
        return self.classifier(self.stages(x).mean((2, 3)))

    def blocks(self) -> Iterator[tuple[str, nn.Cell]]:
        """Name and block, from the image to the classifier."""
        for stage, blocks in enumerate(self.stages):
            yield from ((f"stages.{stage}.{position}", block) for position, block in enumerate(blocks))

    def _initialise(self) -> None:
        for _, cell in self.cells_and_names():
            if isinstance(cell, nn.Conv2d):
                weight = cell.weight
                weight.set_data(initializer(HeNormal(mode="fan_out", nonlinearity="relu"), weight.shape, weight.dtype))
            elif isinstance(cell, nn.Dense):
                cell.weight.set_data(initializer(Normal(0.01), cell.weight.shape, cell.weight.dtype))


def build(arch: str, num_classes: int, *, deploy: bool = False, normed: bool = False) -> RepVGG:
    """A network from VARIANTS with fresh weights. Raises KeyError for an unknown `arch`."""
    return RepVGG(VARIANTS[arch], num_classes, deploy=deploy, normed=normed)


def weights(network: nn.Cell) -> dict[str, ms.Parameter]:
    """Name -> parameter, including the moving statistics of batch norms."""
    return dict(network.parameters_and_names())


def freeze(network: RepVGG, stages: int) -> None:
    """Keep the first `stages` stages as they are in training, the statistics of their batch norms included."""
    for stage in list(network.stages)[:stages]:
        for parameter in stage.get_parameters():
            parameter.requires_grad = False
        fix_statistics(stage)


def fix_statistics(cell: nn.Cell) -> None:
    """Let the batch norms inside compute in training what they do in inference; their scales and shifts still learn."""
    for _, inner in cell.cells_and_names():
        if isinstance(inner, nn.BatchNorm2d):
            inner.use_batch_statistics = False


def set_stem_kernels(network: RepVGG, kernels: NDArray[np.float32]) -> None:
    """Set the kernels of the stem's first output channels to `kernels` (n, 3, 3, 3), and its 1x1 branch there to 0.

    The fused stem then starts as these kernels followed by a batch norm. The scale of the 1x1 branch, or its kernel if
    it has no batch norm, grows from 0 in training.
    """
    stem = network.stages[0][0]
    scale_1x1 = stem.branch_1x1.bn.gamma if isinstance(stem, TrainBlock) else stem.branch_1x1.weight
    zeros = np.zeros((len(kernels), *scale_1x1.shape[1:]), np.float32)
    for parameter, start in ((stem.branch_3x3.conv.weight, kernels), (scale_1x1, zeros)):
        parameter.set_data(Tensor(np.concatenate([start, parameter.asnumpy()[len(start) :]])))


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
