"""Optimizers with decoupled weight decay: MindSpore 2.10 has no AdamW with bias correction, no Lamb on CPU, no Lion.

All maths is in float32; g is the gradient, d the weight decay, m and v the running averages of g and of its square.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops


class Decoupled(nn.Optimizer):  # type: ignore[misc]
    """The common part: learning rate of the step, weight decay of the group, one parameter after the other."""

    def __init__(self, groups: Sequence[Any], rates: Sequence[float], beta: tuple[float, float]) -> None:
        super().__init__(list(rates), list(groups))
        self.beta1, self.beta2 = beta
        self.moment1 = self._parameters.clone("moment1", "zeros")

    def construct(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Update all parameters -> the number of updates so far, int (1,)."""
        gradients = self.flatten_gradients(gradients)
        rate, decays = self.get_lr(), self.get_weight_decay()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        done = self.global_step
        step = ops.cast(self.global_step, ms.float32).reshape(())
        for index in range(len(gradients)):
            parameter = self._parameters[index]
            direction = self.direction(index, gradients[index], decays[index] * parameter, step)
            done = ops.depend(done, ops.assign(parameter, parameter - rate * direction))
        return done

    def adam(self, index: int, gradient: Tensor, step: Tensor, eps: float) -> Tensor:
        """m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) (Kingma & Ba, ICLR 2015); `step` is t, counted from 1."""
        m = self.beta1 * self.moment1[index] + (1 - self.beta1) * gradient
        v = self.beta2 * self.moment2[index] + (1 - self.beta2) * gradient * gradient
        ops.assign(self.moment1[index], m)
        ops.assign(self.moment2[index], v)
        return m / (1 - ops.pow(self.beta1, step)) / (ops.sqrt(v / (1 - ops.pow(self.beta2, step))) + eps)


class AdamW(Decoupled):
    """p <- p - rate * (adam + d * p) (Loshchilov & Hutter, ICLR 2019); eps 1e-8."""

    def __init__(self, groups: Sequence[Any], rates: Sequence[float], beta: tuple[float, float]) -> None:
        super().__init__(groups, rates, beta)
        self.moment2 = self._parameters.clone("moment2", "zeros")

    def direction(self, index: int, gradient: Tensor, decay: Tensor, step: Tensor) -> Tensor:
        return self.adam(index, gradient, step, 1e-8) + decay


class Lamb(Decoupled):
    """p <- p - rate * |p| / |r| * r, r = adam + d * p (You et al., ICLR 2020); eps 1e-6, ratio 1 where a norm is 0."""

    def __init__(self, groups: Sequence[Any], rates: Sequence[float], beta: tuple[float, float]) -> None:
        super().__init__(groups, rates, beta)
        self.moment2 = self._parameters.clone("moment2", "zeros")

    def direction(self, index: int, gradient: Tensor, decay: Tensor, step: Tensor) -> Tensor:
        update = self.adam(index, gradient, step, 1e-6) + decay
        weight_norm = ops.sqrt((self._parameters[index] ** 2).sum())
        update_norm = ops.sqrt((update**2).sum())
        usable = ops.logical_and(weight_norm > 0, update_norm > 0)
        return update * ops.select(usable, weight_norm / update_norm, ops.ones_like(weight_norm))


class Lion(Decoupled):
    """p <- p - rate * (sign(b1 * m + (1 - b1) * g) + d * p), m <- b2 * m + (1 - b2) * g (Chen et al., NeurIPS 2023)."""

    def direction(self, index: int, gradient: Tensor, decay: Tensor, step: Tensor) -> Tensor:
        m = self.moment1[index]
        sign = ops.sign(self.beta1 * m + (1 - self.beta1) * gradient)
        ops.assign(m, self.beta2 * m + (1 - self.beta2) * gradient)
        return sign + decay
