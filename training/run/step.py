"""One training step and one evaluation, as compiled graphs.

1. a step is one graph, whatever is switched on, and without mixed precision exactly float32;
2. gradients are averaged over `accumulate_steps` batches, unscaled, then clipped by their global norm, then applied;
3. an update whose gradients overflow is skipped and counted, and leaves weights, averages and schedule alone;
4. what a resumed run must know of the step is in its `state`;
5. the ranks of a distributed run make the update of one device with the batches of all, and skip it together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from training.config import TrainConfig
from training.data.pipeline import Batch
from training.network.ema import Ema
from training.optim import loss_scale
from training.optim.loss_scale import LossScale
from training.optim.losses import CrossEntropySmooth, CustomL2, true_classes
from training.run.device import ALONE, Place
from training.run.ranks import total

Gradients = tuple[Tensor, ...]

over_all = ops.HyperMap()  # a Python loop over hundreds of gradients takes minutes to compile


@dataclass(frozen=True)
class TrainStep:
    """Call it with images (B, 3, S, S) and labels int32 (B,) or soft (B, K) -> mean loss and number of right answers.

    Both are those of all ranks. `loss_scale` is none in float32.
    """

    graph: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    state: dict[str, ms.Parameter]
    loss_scale: LossScale | None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.graph(images, labels)


class Accumulation(nn.Cell):  # type: ignore[misc]
    """The sum of the gradients of up to `steps` batches."""

    def __init__(self, parameters: ms.ParameterTuple, steps: int) -> None:
        super().__init__(auto_prefix=False)
        self.steps = steps
        self.sums = parameters.clone("accumulated", "zeros")
        self.count = ms.Parameter(Tensor(0, ms.int32), name="accumulated.count", requires_grad=False)

    def construct(self, gradients: Gradients) -> Tensor:
        """Add the gradients of a batch -> whether that makes an update, a bool scalar."""
        added = over_all(_add, self.sums, gradients)
        return ops.depend(ops.assign_add(self.count, Tensor(1, ms.int32)) == self.steps, added)

    def clear(self) -> Tensor:
        return ops.depend(ops.assign(self.count, Tensor(0, ms.int32)), over_all(_clear, self.sums))


def train_step(
    network: nn.Cell, optimizer: nn.Optimizer, config: TrainConfig, ema: Ema | None = None, place: Place = ALONE
) -> TrainStep:
    """The step of the recipe over a network and its optimizer; makes the network compute in the recipe's loss_scale."""
    loss_scale.use(network, config.amp_level)
    scaling = loss_scale.loss_scale(config)
    accumulation = None
    if config.accumulate_steps > 1:
        accumulation = Accumulation(optimizer.parameters, config.accumulate_steps)
    gradients_of = _gradients(network, optimizer, config, scaling)
    update = _update(optimizer, config, scaling, ema, config.accumulate_steps * place.size)
    over_ranks, ranks = _over_ranks(place.size), place.size

    @ms.jit  # type: ignore[untyped-decorator]
    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        (_, loss, right), gradients = gradients_of(images, labels)
        loss, right = over_ranks(loss) / ranks, over_ranks(right)
        if accumulation is None:
            return ops.depend(loss, update(over_all(over_ranks, gradients))), right
        if accumulation(gradients):
            loss = ops.depend(loss, update(over_all(over_ranks, accumulation.sums)))
            loss = ops.depend(loss, accumulation.clear())
        return loss, right

    cells = [cell for cell in (scaling, accumulation) if cell is not None]
    return TrainStep(
        step, {parameter.name: parameter for cell in cells for parameter in cell.get_parameters()}, scaling
    )


def _gradients(
    network: nn.Cell, optimizer: nn.Optimizer, config: TrainConfig, scaling: LossScale | None
) -> Callable[[Tensor, Tensor], tuple[tuple[Tensor, Tensor, Tensor], Gradients]]:
    """-> (images, labels) -> (what is derived, loss, right answers), its gradients times the loss scale."""
    loss_function = CrossEntropySmooth(config.label_smoothing)
    decay = CustomL2(network) if config.custom_l2 else None

    def forward(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = ops.cast(network(images), ms.float32)
        right = ops.cast(ops.argmax(logits, 1) == true_classes(labels), ms.float32).sum()
        loss = loss_function(logits, labels)
        total = loss if decay is None else loss + config.weight_decay / 2 * decay()
        return total if scaling is None else total * scaling.scale, loss, right

    return ms.value_and_grad(forward, None, optimizer.parameters, has_aux=True)  # type: ignore[no-any-return]


def _over_ranks(ranks: int) -> Callable[[Tensor], Tensor]:
    """-> (tensor) -> its sum over all ranks."""
    if ranks == 1:
        return lambda tensor: tensor
    # The attribute is that of nn.DistributedGradReducer: a device may send several tensors together.
    all_reduce = ops.AllReduce().add_prim_attr("fusion", 1)
    return lambda tensor: all_reduce(tensor)


def _update(
    optimizer: nn.Optimizer, config: TrainConfig, scaling: LossScale | None, ema: Ema | None, batches: int
) -> Callable[[Gradients], Tensor]:
    """-> (sums of the scaled gradients of `batches`) -> whether they were applied, a bool scalar."""
    limit = config.clip_global_norm_value

    def apply(gradients: Gradients, norm: Tensor) -> Tensor:
        if limit is not None:
            gradients = multiplied(gradients, limit / ops.maximum(norm, Tensor(limit, ms.float32)))
        done = optimizer(gradients)
        if ema is not None:
            done = ops.depend(ema(optimizer.global_step), done)
        return done

    def update(gradients: Gradients) -> Tensor:
        if scaling is not None:
            gradients = multiplied(gradients, 1 / (scaling.scale * batches))
        elif batches > 1:
            gradients = multiplied(gradients, 1 / batches)
        if scaling is None:
            return apply(gradients, global_norm(gradients) if limit is not None else None)
        norm = global_norm(gradients)
        finite = scaling(ops.isfinite(norm))
        if finite:  # an update whose result is not used is optimised away (MindSpore 2.10)
            finite = ops.depend(finite, apply(gradients, norm))
        return finite

    return update


def multiplied(gradients: Gradients, factor: Tensor | float) -> Gradients:
    """Each gradient times a number."""
    return over_all(ops.partial(_multiply, factor), gradients)  # type: ignore[no-any-return]


def global_norm(gradients: Gradients) -> Tensor:
    """Euclidean norm of all gradients as one vector; not finite if one of them is not."""
    return ops.sqrt(ops.addn(over_all(_sum_of_squares, gradients)))


def _multiply(factor: Tensor | float, gradient: Tensor) -> Tensor:
    return gradient * factor


def _add(total: Tensor, gradient: Tensor) -> Tensor:
    return ops.assign_add(total, gradient)


def _clear(total: Tensor) -> Tensor:
    return ops.assign(total, ops.zeros_like(total))


def _sum_of_squares(gradient: Tensor) -> Tensor:
    return (gradient * gradient).sum()


def evaluate(network: nn.Cell, batches: Iterable[Batch], place: Place = ALONE) -> tuple[int, float, float]:
    """-> number of images of all ranks, top-1 and top-5 as fractions; top-5 is over min(5, classes)."""
    network.set_train(False)
    count, top1, top5 = 0, 0, 0
    for batch in batches:
        logits = network(Tensor(batch.images)).asnumpy()[: batch.count]
        ranked = np.argsort(-logits, axis=1, kind="stable")[:, :5] == batch.labels[: batch.count, None]
        count += batch.count
        top1 += int(ranked[:, 0].sum())
        top5 += int(ranked.any(axis=1).sum())
    count, top1, top5 = (int(number) for number in total([count, top1, top5], place))
    return count, top1 / count, top5 / count
