"""Optimizers with decoupled weight decay: MindSpore 2.10 lacks AdamW with bias correction, Lamb on CPU, and Lion.

Everything is computed in float32. In the formulas, p is a parameter, g its gradient, d the weight decay, and m and v
the running averages of g and of its square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops


class Decoupled(nn.Optimizer):  # type: ignore[misc]
    """Base class: a learning rate, two decay factors and a first moment for every parameter."""

    def __init__(self, groups: Sequence[Any], rates: Sequence[float], beta: tuple[float, float]) -> None:
        super().__init__(list(rates), list(groups))
        self.beta1, self.beta2 = beta
        self.hyper_map = ops.HyperMap()  # compiles in seconds, where a Python loop over all parameters takes minutes
        self.moment1 = self._parameters.clone("moment1", "zeros")

    def begin_update(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """Count this update -> the learning rate of each parameter, and its number from 1 as a float32 scalar."""
        rates = rate_of_each(self)
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        return rates, ops.cast(self.global_step, ms.float32).reshape(())


class Adaptive(Decoupled):
    """Optimizers that divide by the root of the averaged squared gradient; `rule` updates one parameter."""

    rule: Callable[..., Tensor]

    def __init__(self, groups: Sequence[Any], rates: Sequence[float], beta: tuple[float, float]) -> None:
        super().__init__(groups, rates, beta)
        self.moment2 = self._parameters.clone("moment2", "zeros")

    def construct(self, gradients: tuple[Tensor, ...]) -> Tensor:
        rates, step = self.begin_update()
        rule = ops.partial(self.rule, self.beta1, self.beta2, step)
        decays = self.get_weight_decay()
        return self.hyper_map(rule, rates, decays, self._parameters, self.moment1, self.moment2, gradients)


class AdamW(Adaptive):
    """p <- p - rate * (adam + d * p) (Loshchilov & Hutter, ICLR 2019); eps 1e-8."""

    def __init__(self, groups: Sequence[Any], rates: Sequence[float], beta: tuple[float, float]) -> None:
        super().__init__(groups, rates, beta)
        self.rule = adamw_update


class Lamb(Adaptive):
    """p <- p - rate * |p| / |r| * r, r = adam + d * p (You et al., ICLR 2020); eps 1e-6.

    The ratio is 1 where a norm is 0 and, as in the authors' code, for parameters without weight decay: a batch norm's
    scale or a bias should not move in proportion to its own size.
    """

    def __init__(self, groups: Sequence[Any], rates: Sequence[float], beta: tuple[float, float]) -> None:
        super().__init__(groups, rates, beta)
        self.rule = _lamb


class Lion(Decoupled):
    """p <- p - rate * (sign(b1 * m + (1 - b1) * g) + d * p), m <- b2 * m + (1 - b2) * g (Chen et al., NeurIPS 2023)."""

    def construct(self, gradients: tuple[Tensor, ...]) -> Tensor:
        rates, _ = self.begin_update()
        rule = ops.partial(_lion, self.beta1, self.beta2)
        return self.hyper_map(rule, rates, self.get_weight_decay(), self._parameters, self.moment1, gradients)


def rate_of_each(optimizer: nn.Optimizer) -> tuple[Tensor, ...]:
    """The learning rate of each parameter in this update."""
    rates = optimizer.get_lr()
    return rates if optimizer.is_group_lr else (rates,) * len(optimizer.parameters)


def _adam(
    beta1: float, beta2: float, step: Tensor, eps: float, m: ms.Parameter, v: ms.Parameter, gradient: Tensor
) -> Tensor:
    """m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) (Kingma & Ba, ICLR 2015); updates m and v."""
    next_m = ops.assign(m, beta1 * m + (1 - beta1) * gradient)
    next_v = ops.assign(v, beta2 * v + (1 - beta2) * gradient * gradient)
    return next_m / (1 - ops.pow(beta1, step)) / (ops.sqrt(next_v / (1 - ops.pow(beta2, step))) + eps)


def adamw_update(
    beta1: float,
    beta2: float,
    step: Tensor,
    rate: Tensor,
    decay: float,
    parameter: ms.Parameter,
    m: ms.Parameter,
    v: ms.Parameter,
    gradient: Tensor,
) -> Tensor:
    direction = _adam(beta1, beta2, step, 1e-8, m, v, gradient) + decay * parameter
    return ops.assign(parameter, parameter - rate * direction)


def _lamb(
    beta1: float,
    beta2: float,
    step: Tensor,
    rate: Tensor,
    decay: float,
    parameter: ms.Parameter,
    m: ms.Parameter,
    v: ms.Parameter,
    gradient: Tensor,
) -> Tensor:
    direction = _adam(beta1, beta2, step, 1e-6, m, v, gradient) + decay * parameter
    weight_norm, norm = ops.sqrt((parameter**2).sum()), ops.sqrt((direction**2).sum())
    usable = ops.logical_and(ops.logical_and(weight_norm > 0, norm > 0), decay > 0)
    ratio = ops.select(usable, weight_norm / norm, ops.ones_like(norm))
    return ops.assign(parameter, parameter - rate * ratio * direction)


def _lion(
    beta1: float,
    beta2: float,
    rate: Tensor,
    decay: float,
    parameter: ms.Parameter,
    m: ms.Parameter,
    gradient: Tensor,
) -> Tensor:
    sign = ops.sign(beta1 * m + (1 - beta1) * gradient)
    moved = ops.depend(sign, ops.assign(m, beta2 * m + (1 - beta2) * gradient))
    return ops.assign(parameter, parameter - rate * (moved + decay * parameter))
