"""One training step and one evaluation, as compiled graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from training.config import TrainConfig
from training.data import Batch
from training.losses import CrossEntropySmooth, CustomL2, true_classes

TrainStep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def train_step(network: nn.Cell, optimizer: nn.Optimizer, config: TrainConfig) -> TrainStep:
    """-> (images (B, 3, S, S), labels int32 (B,) or soft (B, K)) -> mean loss and right answers, one update done."""
    loss_function = CrossEntropySmooth(config.label_smoothing)
    decay = CustomL2(network) if config.custom_l2 else None

    def forward(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = network(images)
        right = ops.cast(ops.argmax(logits, 1) == true_classes(labels), ms.int32).sum()
        loss = loss_function(logits, labels)
        if decay is None:
            return loss, loss, right
        return loss + config.weight_decay / 2 * decay(), loss, right

    gradients_of = ms.value_and_grad(forward, None, optimizer.parameters, has_aux=True)

    @ms.jit  # type: ignore[untyped-decorator]
    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        (_, loss, right), gradients = gradients_of(images, labels)
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
