"""An exponential moving average of the weights, the batch norms' statistics included (Polyak & Juditsky 1992)."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

PREFIX = "ema."


class Ema(nn.Cell):  # type: ignore[misc]
    """`average` is a second network of the same architecture, whose parameters hold the average.

    After each update, a <- d * a + (1 - d) * w with d = decay. `forgets_start`: d = min(decay, (1 + n) / (10 + n))
    after n earlier updates, which makes the average forget random first weights quickly. Those of a pretrained network
    are worth remembering.
    """

    def __init__(self, network: nn.Cell, average: nn.Cell, decay: float, *, forgets_start: bool = True) -> None:
        super().__init__(auto_prefix=False)
        average.update_parameters_name(PREFIX)  # parameters of one graph must have distinct names
        self.decay, self.forgets_start = decay, forgets_start
        self.hyper_map = ops.HyperMap()  # compiles in seconds, where a Python loop takes minutes
        self.weights = ms.ParameterTuple(network.get_parameters())
        self.averages = ms.ParameterTuple(average.get_parameters())
        self.restart()

    def restart(self) -> None:
        """Set the average to the current weights of the network."""
        for weight, average in zip(self.weights, self.averages, strict=True):
            average.set_data(ms.Tensor(weight.asnumpy()))
            average.requires_grad = False

    def construct(self, updates: Tensor) -> Tensor:
        """Add the current weights to the average; `updates` int (1,) counts all updates, including this one."""
        decay = Tensor(self.decay, ms.float32)
        if self.forgets_start:
            before = ops.cast(updates, ms.float32).reshape(()) - 1
            decay = ops.minimum((1 + before) / (10 + before), decay)
        return ops.depend(updates, self.hyper_map(ops.partial(_blend, decay), self.averages, self.weights))


def _blend(decay: Tensor, average: ms.Parameter, weight: ms.Parameter) -> Tensor:
    return ops.assign(average, decay * average + (1 - decay) * weight)
