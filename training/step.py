"""One training step and one evaluation, as compiled graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from training.config import TrainConfig
from training.data import Batch
from training.schedules import learning_rates

TrainStep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def optimizer(network: nn.Cell, config: TrainConfig, steps_per_epoch: int) -> nn.Optimizer:
    """SGD with momentum; weight decay on kernels only: on batch norms and biases it does harm (He et al. 2019)."""
    decayed: list[ms.Parameter] = []
    plain: list[ms.Parameter] = []
    for parameter in network.trainable_params():
        (decayed if parameter.ndim > 1 else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return nn.Momentum(
        groups, learning_rates(config, steps_per_epoch), config.momentum, use_nesterov=config.optimizer == "nesterov"
    )


def train_step(network: nn.Cell, optimizer: nn.Optimizer, label_smoothing: float) -> TrainStep:
    """-> (images (B, 3, S, S), labels int32 (B,)) -> mean loss and number of right answers, one update done."""
    loss_function = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def forward(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(images)
        right = ops.cast(ops.argmax(logits, 1) == labels, ms.int32).sum()
        return loss_function(logits, labels), right

    gradients_of = ms.value_and_grad(forward, None, optimizer.parameters, has_aux=True)

    @ms.jit  # type: ignore[untyped-decorator]
    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        (loss, right), gradients = gradients_of(images, labels)
        return ops.depend(loss, optimizer(gradients)), right

    return step  # type: ignore[no-any-return]


def evaluate(network: nn.Cell, batches: Iterable[Batch]) -> tuple[int, float, float]:
    """-> number of images, top-1 and top-5 as fractions; top-5 is over min(5, classes)."""
    network.set_train(False)
    count, top1, top5 = 0, 0, 0
    for batch in batches:
        logits = network(Tensor(batch.images)).asnumpy()[: batch.count]
        ranked = np.argsort(-logits, axis=1, kind="stable")[:, :5] == batch.labels[: batch.count, None]
        count += batch.count
        top1 += int(ranked[:, 0].sum())
        top5 += int(ranked.any(axis=1).sum())
    return count, top1 / count, top5 / count
