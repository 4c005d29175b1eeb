"""Muon: orthogonalised steps for the inner convolutions, Nesterov momentum or AdamW for all other parameters.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", and its use on CIFAR-10,
"94% on CIFAR-10 in 2.59 seconds". In the formulas, p is a parameter, g its gradient, v its momentum buffer and m the
momentum factor. A kernel (out, in, k, k) is treated as a matrix of `out` rows; a grouped kernel is one such matrix for
each group, because no group sees another one's inputs. A batch norm follows each such kernel, so a matrix's norm has no
effect on the network. The norm is therefore fixed at the root of the matrix's rank, and the kernel gets no weight
decay: the learning rate is then roughly the relative change of the kernel in an update. The rank is the number of the
group's output channels, except for a 1x1 kernel with fewer inputs than outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from training.optim.decoupled import adamw_update, rate_of_each

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # steep at zero rather than exact at one: singular values end up in 0.7..1.2


class Muon(nn.Optimizer):  # type: ignore[misc]
    """v <- m * v + g, p <- sqrt(r) * p / |p| - rate * orthogonal(g + m * v), for the first parameters, one for each of
    `kernels`, which holds the number of groups of each.

    r is the smaller side of a group's matrix. For all other parameters, with weight decay d and g + d * p in place of
    g, p <- p - rate * (g + m * v).
    """

    def __init__(
        self, groups: Sequence[Any], rates: Sequence[float], momentum: float, kernels: tuple[int, ...]
    ) -> None:
        super().__init__(list(rates), list(groups))
        self.momentum, self.kernels, self.kernel_groups = momentum, len(kernels), kernels
        self.hyper_map = ops.HyperMap()  # compiles in seconds, where a Python loop over all parameters takes minutes
        self.moments = self._parameters.clone("moments", "zeros")

    def construct(self, gradients: tuple[Tensor, ...]) -> Tensor:
        rates, n = rate_of_each(self), self.kernels
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        done = self.update_others(rates[n:], gradients[n:])
        if n > 0:
            rule = ops.partial(_orthogonal_update, self.momentum)
            kernels, moments = self._parameters[:n], self.moments[:n]
            done += self.hyper_map(rule, rates[:n], self.kernel_groups, kernels, moments, gradients[:n])
        return done

    def update_others(self, rates: tuple[Tensor, ...], gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Update the parameters after the first `kernels`."""
        n, rule = self.kernels, ops.partial(_nesterov_update, self.momentum)
        decays = self.get_weight_decay()
        return self.hyper_map(  # type: ignore[no-any-return]
            rule, rates, decays[n:], self._parameters[n:], self.moments[n:], gradients
        )


class MuonAdamW(Muon):
    """Muon for the parameters of `kernels`, AdamW with `factor` times Muon's learning rate for all others."""

    def __init__(
        self,
        groups: Sequence[Any],
        rates: Sequence[float],
        momentum: float,
        kernels: tuple[int, ...],
        beta: tuple[float, float],
        factor: float,
    ) -> None:
        super().__init__(groups, rates, momentum, kernels)
        self.beta1, self.beta2 = beta
        self.factor = factor
        self.moment2 = ms.ParameterTuple(self._parameters[self.kernels :]).clone("moment2", "zeros")

    def update_others(self, rates: tuple[Tensor, ...], gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        n, step = self.kernels, ops.cast(self.global_step, ms.float32).reshape(())
        rule = ops.partial(adamw_update, self.beta1, self.beta2, step)
        rates, decays = self.hyper_map(ops.partial(_times, self.factor), rates), self.get_weight_decay()
        return self.hyper_map(  # type: ignore[no-any-return]
            rule, rates, decays[n:], self._parameters[n:], self.moments[n:], self.moment2, gradients
        )


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximates U V^T of the matrix U S V^T by Newton-Schulz iteration, which needs matrix products only."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix  # so that the products are of the smaller side
    x = x / (ops.sqrt((x * x).sum()) + 1e-7)
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = ops.matmul(x, x.T)
        x = first * x + ops.matmul(third * square + fifth * ops.matmul(square, square), x)
    return x.T if tall else x


def _times(factor: float, rate: Tensor) -> Tensor:
    return factor * rate


def _orthogonal_update(
    momentum: float, rate: Tensor, groups: int, kernel: ms.Parameter, moment: ms.Parameter, gradient: Tensor
) -> Tensor:
    next_moment = ops.assign(moment, momentum * moment + gradient)
    rows, columns = kernel.shape[0] // groups, kernel.size // kernel.shape[0]
    directions = (gradient + momentum * next_moment).reshape(groups, rows, columns)
    step = ops.stack([orthogonal(directions[group]) for group in range(groups)])
    matrices = kernel.reshape(groups, rows, columns)
    norms = ops.sqrt((matrices * matrices).sum((1, 2), keepdims=True))
    moved = math.sqrt(min(rows, columns)) * matrices / norms - rate * step
    return ops.assign(kernel, moved.reshape(kernel.shape))


def _nesterov_update(
    momentum: float, rate: Tensor, decay: float, parameter: ms.Parameter, moment: ms.Parameter, gradient: Tensor
) -> Tensor:
    decayed = gradient + decay * parameter
    next_moment = ops.assign(moment, momentum * moment + decayed)
    return ops.assign(parameter, parameter - rate * (decayed + momentum * next_moment))
