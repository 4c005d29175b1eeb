"""Mean and variance of what each batch norm of a train form gets, over images."""

from __future__ import annotations

from collections.abc import Iterable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from training.network.repvgg import QATrainBlock, RepVGG
from weights.split import Moments


class _BatchNormInputs(nn.Cell):  # type: ignore[misc]
    """Images -> mean and mean square (C,) of the input of each batch norm in `names`, all in inference mode."""

    def __init__(self, network: RepVGG) -> None:
        super().__init__(auto_prefix=False)
        self.blocks = nn.CellList([block for stage in network.stages for block in stage], auto_prefix=False)
        self.names: list[str] = []
        for stage, blocks in enumerate(network.stages):
            for position, block in enumerate(blocks):
                last = ["bn"] if isinstance(block, QATrainBlock) else ["branch_1x1.bn", "branch_identity"]
                kept = ["branch_3x3.bn", *(last if _has_identity(block) else last[:1])]
                self.names += [f"stages.{stage}.{position}.{name}" for name in kept]

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        moments: tuple[Tensor, ...] = ()
        for block in self.blocks:
            for y in block.batch_norm_inputs(x):
                moments += (y.mean((0, 2, 3)), (y * y).mean((0, 2, 3)))
            x = block(x)
        return moments


def _has_identity(block: nn.Cell) -> bool:
    return not isinstance(block, QATrainBlock) and block.branch_identity is not None


def measure(network: RepVGG, batches: Iterable[Tensor]) -> Moments:
    """Name of each batch norm -> mean and variance (C,) of its input over batches (B, 3, S, S) of one size."""
    inputs = _BatchNormInputs(network)
    network.set_train(False)
    count, total = 0, [np.zeros(1)]
    for batch in batches:
        found = [tensor.asnumpy().astype(np.float64) for tensor in inputs(batch)]
        count, total = count + 1, [a + b for a, b in zip(total, found, strict=True)] if count else found
    means, squares = ([array / count for array in total[part::2]] for part in (0, 1))
    return {
        name: (mean, np.maximum(square - mean**2, 0))
        for name, mean, square in zip(inputs.names, means, squares, strict=True)
    }
