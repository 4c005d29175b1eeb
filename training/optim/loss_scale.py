"""Mixed precision: which layers compute in float16, and the loss scale that keeps small gradients from underflowing.

1. O0 is pure float32 and has no loss scale;
2. batch norms and the loss stay in float32 up to O2; weights and their updates always do;
3. a dynamic scale halves at an overflow, but not below 1, and doubles after 2000 updates in a row without one.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from training.config import TrainConfig

GROWTH_INTERVAL = 2000  # Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.2


def set_precision(network: nn.Cell, level: str) -> None:
    """Make the network compute in the precision of an `amp_level`; its parameters stay float32.

    O1: convolutions and matrix products in float16. O2: everything except batch norms. O3: everything.
    """
    if level in ("O2", "O3"):
        network.to_float(ms.float16)
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv2d | nn.Dense) and level == "O1":
            cell.to_float(ms.float16)
        if isinstance(cell, nn.BatchNorm2d) and level in ("O1", "O2"):
            cell.to_float(ms.float32)


class LossScale(nn.Cell):  # type: ignore[misc]
    """The loss scale, and the number of updates skipped because a gradient overflowed."""

    def __init__(self, scale: float, *, dynamic: bool, growth_interval: int = GROWTH_INTERVAL) -> None:
        super().__init__()
        self.dynamic, self.growth_interval = dynamic, growth_interval
        self.scale = ms.Parameter(Tensor(scale, ms.float32), name="loss_scale.scale", requires_grad=False)
        self.finite_in_a_row = ms.Parameter(Tensor(0, ms.int32), name="loss_scale.finite_in_a_row", requires_grad=False)
        self.overflows = ms.Parameter(Tensor(0, ms.int32), name="loss_scale.overflows", requires_grad=False)

    def construct(self, finite: Tensor) -> Tensor:
        """Record whether the gradients of an update were finite, a bool scalar, and return it."""
        ops.assign_add(self.overflows, 1 - ops.cast(finite, ms.int32))
        if self.dynamic:
            in_a_row = (self.finite_in_a_row + 1) * ops.cast(finite, ms.int32)
            grows = in_a_row == self.growth_interval
            ops.assign(self.finite_in_a_row, ops.select(grows, ops.zeros_like(in_a_row), in_a_row))
            kept = ops.select(grows, self.scale * 2, self.scale * 1)
            halved = ops.maximum(self.scale / 2, ops.ones_like(self.scale))
            ops.assign(self.scale, ops.select(finite, kept, halved))
        return finite

    @property
    def exhausted(self) -> bool:
        """Whether the scale cannot get any smaller, so that gradients that overflow now always will."""
        return not self.dynamic or float(self.scale.asnumpy()) <= 1


def build_loss_scale(config: TrainConfig) -> LossScale | None:
    """The loss scale of the recipe, or None in float32."""
    if config.amp_level == "O0":
        return None
    return LossScale(config.loss_scale, dynamic=config.is_dynamic_loss_scale)
