"""One training step, as a compiled graph.

1. a step is one graph, whatever options are on, and without mixed precision it computes in float32 only;
2. gradients are averaged over `accumulate_steps` batches, unscaled, clipped by their global norm, and then applied;
3. an update whose gradients overflow is skipped and counted, and changes neither weights nor averages nor schedule;
4. `state` holds what a resumed run must restore of the step;
5. several ranks make the same update as one device with all their batches, and skip it together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mindspore as ms
from mindspore import Tensor, nn, ops

from training.config import TrainConfig
from training.network.ema import Ema
from training.optim import loss_scale
from training.optim.loss_scale import LossScale
from training.optim.losses import (
    BinaryCrossEntropy,
    CrossEntropySmooth,
    CustomL2,
    Distillation,
    WithoutImages,
    are_right,
)
from training.run.distributed.device import SINGLE_PROCESS, Process

Gradients = tuple[Tensor, ...]

hyper_map = ops.HyperMap()  # compiles in seconds, where a Python loop over hundreds of gradients takes minutes


@dataclass(frozen=True)
class TrainStep:
    """Call it with images (B, 3, S, S) and labels, int32 (B,) or soft (B, K) -> mean loss, number of right answers.

    Both results cover all ranks. `loss_scale` is None in float32.
    """

    graph: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    state: dict[str, ms.Parameter]
    loss_scale: LossScale | None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.graph(images, labels)


class GradientAccumulator(nn.Cell):  # type: ignore[misc]
    """Sums the gradients of `steps` batches."""

    def __init__(self, parameters: ms.ParameterTuple, steps: int) -> None:
        super().__init__(auto_prefix=False)
        self.steps = steps
        self.sums = parameters.clone("accumulated", "zeros")
        self.count = ms.Parameter(Tensor(0, ms.int32), name="accumulated.count", requires_grad=False)

    def construct(self, gradients: Gradients) -> Tensor:
        """Add the gradients of a batch -> whether an update is due, a bool scalar."""
        added = hyper_map(_add, self.sums, gradients)
        return ops.depend(ops.assign_add(self.count, Tensor(1, ms.int32)) == self.steps, added)

    def clear(self) -> Tensor:
        return ops.depend(ops.assign(self.count, Tensor(0, ms.int32)), hyper_map(_clear, self.sums))


def train_step(
    network: nn.Cell,
    optimizer: nn.Optimizer,
    config: TrainConfig,
    ema: Ema | None = None,
    process: Process = SINGLE_PROCESS,
    class_weights: Sequence[float] | None = None,
    teacher: nn.Cell | None = None,
) -> TrainStep:
    """Build the training step of the recipe; also sets the precision in which the network computes.

    `class_weights` (K,): how much an image of each class counts in the loss; None: all the same. `teacher`: images ->
    logits (N, K) that the network also learns from.
    """
    loss_scale.set_precision(network, config.amp_level)
    scaling = loss_scale.build_loss_scale(config)
    accumulator = None
    if config.accumulate_steps > 1:
        accumulator = GradientAccumulator(optimizer.parameters, config.accumulate_steps)
    loss_function: nn.Cell = CrossEntropySmooth(config.label_smoothing, class_weights)
    if config.labels == "multi":
        loss_function = BinaryCrossEntropy(config.label_smoothing)
    if teacher is not None:
        loss_function = Distillation(loss_function, teacher, config.teacher_temperature, config.teacher_weight)
    else:
        loss_function = WithoutImages(loss_function)
    compute_gradients = _gradient_function(network, optimizer, config, scaling, loss_function)
    update = _update_function(optimizer, config, scaling, ema, config.accumulate_steps * process.size)
    all_reduce, ranks = _all_reduce(process.size), process.size

    @ms.jit  # type: ignore[untyped-decorator]
    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        (_, loss, right), gradients = compute_gradients(images, labels)
        loss, right = all_reduce(loss) / ranks, all_reduce(right)
        if accumulator is None:
            return ops.depend(loss, update(hyper_map(all_reduce, gradients))), right
        if accumulator(gradients):
            loss = ops.depend(loss, update(hyper_map(all_reduce, accumulator.sums)))
            loss = ops.depend(loss, accumulator.clear())
        return loss, right

    cells = [cell for cell in (scaling, accumulator) if cell is not None]
    return TrainStep(
        step, {parameter.name: parameter for cell in cells for parameter in cell.get_parameters()}, scaling
    )


def _gradient_function(
    network: nn.Cell, optimizer: nn.Optimizer, config: TrainConfig, scaling: LossScale | None, loss_function: nn.Cell
) -> Callable[[Tensor, Tensor], tuple[tuple[Tensor, Tensor, Tensor], Gradients]]:
    """A function (images, labels) -> (scaled objective, loss, right answers), gradients times the loss scale."""
    decay, multi = CustomL2(network) if config.custom_l2 else None, config.labels == "multi"

    def forward(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = ops.cast(network(images), ms.float32)
        right = ops.cast(are_right(logits, labels, multi=multi), ms.float32).sum()
        loss = loss_function(images, logits, labels)
        objective = loss if decay is None else loss + config.weight_decay / 2 * decay()
        return objective if scaling is None else objective * scaling.scale, loss, right

    return ms.value_and_grad(forward, None, optimizer.parameters, has_aux=True)  # type: ignore[no-any-return]


def _all_reduce(ranks: int) -> Callable[[Tensor], Tensor]:
    """A function tensor -> its sum over all ranks."""
    if ranks == 1:
        return lambda tensor: tensor
    # As in nn.DistributedGradReducer: lets a device send several tensors in one message.
    all_reduce = ops.AllReduce().add_prim_attr("fusion", 1)
    return lambda tensor: all_reduce(tensor)


def _update_function(
    optimizer: nn.Optimizer, config: TrainConfig, scaling: LossScale | None, ema: Ema | None, batches: int
) -> Callable[[Gradients], Tensor]:
    """A function (sums of the scaled gradients of `batches`) -> whether they were applied, a bool scalar."""
    limit = config.clip_global_norm_value

    def apply(gradients: Gradients, norm: Tensor) -> Tensor:
        if limit is not None:
            gradients = multiply(gradients, limit / ops.maximum(norm, Tensor(limit, ms.float32)))
        done = optimizer(gradients)
        if ema is not None:
            done = ops.depend(ema(optimizer.global_step), done)
        return done

    def update(gradients: Gradients) -> Tensor:
        if scaling is not None:
            gradients = multiply(gradients, 1 / (scaling.scale * batches))
        elif batches > 1:
            gradients = multiply(gradients, 1 / batches)
        if scaling is None:
            return apply(gradients, global_norm(gradients) if limit is not None else None)
        norm = global_norm(gradients)
        finite = scaling(ops.isfinite(norm))
        if finite:  # MindSpore 2.10 removes an update whose result is unused
            finite = ops.depend(finite, apply(gradients, norm))
        return finite

    return update


def multiply(gradients: Gradients, factor: Tensor | float) -> Gradients:
    """Multiply each gradient by a number."""
    return hyper_map(ops.partial(_multiply, factor), gradients)  # type: ignore[no-any-return]


def global_norm(gradients: Gradients) -> Tensor:
    """The Euclidean norm of all gradients as one vector; not finite if any gradient is not."""
    return ops.sqrt(ops.addn(hyper_map(_sum_of_squares, gradients)))


def _multiply(factor: Tensor | float, gradient: Tensor) -> Tensor:
    return gradient * factor


def _add(total: Tensor, gradient: Tensor) -> Tensor:
    return ops.assign_add(total, gradient)


def _clear(total: Tensor) -> Tensor:
    return ops.assign(total, ops.zeros_like(total))


def _sum_of_squares(gradient: Tensor) -> Tensor:
    return (gradient * gradient).sum()
