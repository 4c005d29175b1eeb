"""Muon: steps of the inner convolutions made orthogonal, all other parameters by Nesterov momentum.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", and its use on CIFAR-10,
"94% on CIFAR-10 in 2.59 seconds". g is the gradient, v its momentum m; a kernel (out, in, k, k) is a matrix of `out`
rows. A batch norm behind a kernel makes its norm meaningless: it is held at the root of the matrix's rank, so that
the rate is, about, the share of itself by which the kernel turns in an update, and takes no weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # steep at zero rather than exact at one: singular values end at 0.7 to 1.2


class Muon(nn.Optimizer):  # type: ignore[misc]
    """p <- sqrt(r) * p / |p| - rate * orthogonal(g + m * v), v <- m * v + g, for the first `kernels` parameters.

    r is the smaller of a matrix's sides. For the others, with d the weight decay and g + d * p in the place of g,
    p <- p - rate * (g + m * v).
    """

    def __init__(self, groups: Sequence[Any], rates: Sequence[float], momentum: float, kernels: int) -> None:
        super().__init__(list(rates), list(groups))
        self.momentum, self.kernels = momentum, kernels
        self.over_all = ops.HyperMap()  # a Python loop over hundreds of parameters takes minutes to compile
        self.moments = self._parameters.clone("moments", "zeros")

    def construct(self, gradients: tuple[Tensor, ...]) -> Tensor:
        rate, decays, n = self.get_lr(), self.get_weight_decay(), self.kernels
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        move = ops.partial(_move, self.momentum, rate)
        done = self.over_all(move, decays[n:], self._parameters[n:], self.moments[n:], gradients[n:])
        if n > 0:
            turn = ops.partial(_turn, self.momentum, rate)
            done += self.over_all(turn, self._parameters[:n], self.moments[:n], gradients[:n])
        return done


def orthogonal(matrix: Tensor) -> Tensor:
    """U V^T, roughly, of the matrix U S V^T, by Newton-Schulz iteration: products only, no decomposition."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix  # the smaller side's products
    x = x / (ops.sqrt((x * x).sum()) + 1e-7)
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = ops.matmul(x, x.T)
        x = first * x + ops.matmul(third * square + fifth * ops.matmul(square, square), x)
    return x.T if tall else x


def _turn(momentum: float, rate: Tensor, kernel: ms.Parameter, moment: ms.Parameter, gradient: Tensor) -> Tensor:
    next_moment = ops.assign(moment, momentum * moment + gradient)
    rows = kernel.shape[0]
    step = orthogonal((gradient + momentum * next_moment).reshape(rows, -1)).reshape(kernel.shape)
    length = math.sqrt(min(rows, kernel.size // rows))
    return ops.assign(kernel, length * kernel / ops.sqrt((kernel * kernel).sum()) - rate * step)


def _move(
    momentum: float, rate: Tensor, decay: float, parameter: ms.Parameter, moment: ms.Parameter, gradient: Tensor
) -> Tensor:
    decayed = gradient + decay * parameter
    next_moment = ops.assign(moment, momentum * moment + decayed)
    return ops.assign(parameter, parameter - rate * (decayed + momentum * next_moment))
