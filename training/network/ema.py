"""An exponential moving average of the weights, the batch norms' statistics included (Polyak & Juditsky 1992)."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

PREFIX = "ema."


class Ema(nn.Cell):  # type: ignore[misc]
    """`average` is a second network of the same architecture, whose parameters become the average.

    a <- d * a + (1 - d) * w after each update, d = min(decay, (1 + n) / (10 + n)) with n updates before it: a short
    run, or the beginning of a long one, does not drag its random first weights along.
    """

    def __init__(self, network: nn.Cell, average: nn.Cell, decay: float) -> None:
        super().__init__(auto_prefix=False)
        average.update_parameters_name(PREFIX)  # two parameters of a graph must not share a name
        self.decay = decay
        self.over_all = ops.HyperMap()  # a Python loop would take minutes to compile
        self.weights = ms.ParameterTuple(network.get_parameters())
        self.averages = ms.ParameterTuple(average.get_parameters())
        self.restart()

    def restart(self) -> None:
        """The average becomes what the network is now."""
        for weight, average in zip(self.weights, self.averages, strict=True):
            average.set_data(ms.Tensor(weight.asnumpy()))
            average.requires_grad = False

    def construct(self, updates: Tensor) -> Tensor:
        """Take the weights in; `updates` int (1,) is the number of them so far, this one included."""
        before = ops.cast(updates, ms.float32).reshape(()) - 1
        decay = ops.minimum((1 + before) / (10 + before), Tensor(self.decay, ms.float32))
        return ops.depend(updates, self.over_all(ops.partial(_move, decay), self.averages, self.weights))


def _move(decay: Tensor, average: ms.Parameter, weight: ms.Parameter) -> Tensor:
    return ops.assign(average, decay * average + (1 - decay) * weight)
