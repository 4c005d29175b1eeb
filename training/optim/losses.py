"""The objective of a step: cross entropy with soft targets, and RepVGG's own weight decay.

1. the loss is its formula, for class ids and for soft targets (N, K) such as those of MixUp;
2. what a teacher adds is Hinton's formula;
3. the custom L2 decays the kernel that a block has after fusing, and sends no gradient to the batch norms.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from numpy.typing import NDArray

from training.network.repvgg import BATCH_NORM_EPS, TrainBlock


class CrossEntropySmooth(nn.Cell):  # type: ignore[misc]
    """-sum_k q_k log p_k, averaged over the batch, q = (1 - smoothing) * target + smoothing / K.

    Label smoothing as in Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, section 7. With weights w
    of the classes (K,), the mean is weighted by sum_k w_k target_k of each image.
    """

    def __init__(self, smoothing: float, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.class_weights = Tensor(class_weights, ms.float32) if class_weights is not None else None

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K); labels int (N,) or soft targets (N, K) whose rows sum to 1 -> a scalar."""
        classes = logits.shape[1]
        targets = labels if labels.ndim == 2 else labels[:, None] == ops.arange(classes)
        smooth = ops.cast(targets, logits.dtype) * (1 - self.smoothing) + self.smoothing / classes
        losses = -(smooth * ops.log_softmax(logits, 1)).sum(1)
        if self.class_weights is None:
            return losses.mean()
        weights = (ops.cast(targets, logits.dtype) * self.class_weights).sum(1)
        return (weights * losses).sum() / weights.sum()


class BinaryCrossEntropy(nn.Cell):  # type: ignore[misc]
    """-(q log p + (1 - q) log(1 - p)), averaged over batch and labels, p = sigmoid(logit), q = (1 - smoothing) * target
    + smoothing / 2: each label by itself."""

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits and targets (N, K) -> a scalar."""
        targets = ops.cast(labels, logits.dtype) * (1 - self.smoothing) + self.smoothing / 2
        losses = ops.relu(logits) - logits * targets + ops.log1p(ops.exp(-ops.abs(logits)))  # never overflows
        return losses.mean()


class Distillation(nn.Cell):  # type: ignore[misc]
    """(1 - weight) * loss + weight * T^2 * sum_k t_k log(t_k / s_k), averaged over the batch: t and s are the scores of
    teacher and student at temperature T.

    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, section 2; T^2 keeps the
    size of the gradient. `teacher` takes images and gives logits (N, K).
    """

    def __init__(self, loss: nn.Cell, teacher: nn.Cell, temperature: float, weight: float) -> None:
        super().__init__()
        self.loss, self.teacher, self.temperature, self.weight = loss, teacher, temperature, weight

    def construct(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Images as the teacher takes them, logits (N, K), labels as `loss` takes them -> a scalar."""
        taught = ops.log_softmax(self.teacher(images) / self.temperature, 1)
        told = ops.log_softmax(logits / self.temperature, 1)
        divergence = (ops.exp(taught) * (taught - told)).sum(1).mean()
        return (1 - self.weight) * self.loss(logits, labels) + self.weight * self.temperature**2 * divergence


class WithoutImages(nn.Cell):  # type: ignore[misc]
    """A loss that asks nobody else about the images."""

    def __init__(self, loss: nn.Cell) -> None:
        super().__init__()
        self.loss = loss

    def construct(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        return self.loss(logits, labels)


def balanced_weights(labels: NDArray[np.int32], classes: int) -> tuple[float, ...]:
    """In inverse proportion to the number of images of each class, 1 on average over the images."""
    counts = np.bincount(labels, minlength=classes)
    return tuple((len(labels) / (classes * np.maximum(counts, 1))).tolist())


def true_classes(labels: Tensor) -> Tensor:
    """Class ids (N,), or soft targets (N, K) -> the most likely class of each (N,)."""
    return labels if labels.ndim == 1 else ops.argmax(labels, 1)


def are_right(logits: Tensor, labels: Tensor, *, multi: bool) -> Tensor:
    """(N,) whether the best of the logits (N, K) is the true class or, with `multi`, one of the labels that apply."""
    best = ops.argmax(logits, 1)
    if multi:
        return ops.gather_elements(labels, 1, best[:, None]).reshape(-1) > 0.5
    return best == true_classes(labels)


class CustomL2(nn.Cell):  # type: ignore[misc]
    """The sum over all RepVGG blocks of their equivalent kernels' squared norms (get_custom_L2 in the authors' code).

    The eight outer weights of a 3x3 kernel count as they are. At the centre both branches meet: with t the scale
    gamma / sqrt(variance + eps) of each branch's batch norm, its share is (c3 * t3 + c1 * t1)^2 / (t3^2 + t1^2). The
    gradient treats t as a constant. The loss grows by half of the sum times the weight decay.
    """

    def __init__(self, network: nn.Cell) -> None:
        super().__init__()
        blocks = [cell for _, cell in network.cells_and_names() if isinstance(cell, TrainBlock)]
        wide, narrow = [block.branch_3x3 for block in blocks], [block.branch_1x1 for block in blocks]
        self.wide_kernels = ms.ParameterTuple([branch.conv.weight for branch in wide])
        self.wide_gammas = ms.ParameterTuple([branch.bn.gamma for branch in wide])
        self.wide_variances = ms.ParameterTuple([branch.bn.moving_variance for branch in wide])
        self.narrow_kernels = ms.ParameterTuple([branch.conv.weight for branch in narrow])
        self.narrow_gammas = ms.ParameterTuple([branch.bn.gamma for branch in narrow])
        self.narrow_variances = ms.ParameterTuple([branch.bn.moving_variance for branch in narrow])
        self.hyper_map = ops.HyperMap()  # compiles fast, where a Python loop over the blocks of a large network is slow

    def construct(self) -> Tensor:
        return ops.addn(
            self.hyper_map(
                _squared_norm,
                self.wide_kernels,
                self.wide_gammas,
                self.wide_variances,
                self.narrow_kernels,
                self.narrow_gammas,
                self.narrow_variances,
            )
        )


def _squared_norm(
    wide: Tensor,
    wide_gamma: Tensor,
    wide_variance: Tensor,
    narrow: Tensor,
    narrow_gamma: Tensor,
    narrow_variance: Tensor,
) -> Tensor:
    """The squared norm of one block's equivalent kernel."""
    wide_scale, narrow_scale = _scale(wide_gamma, wide_variance), _scale(narrow_gamma, narrow_variance)
    centre = wide[:, :, 1:2, 1:2]
    equivalent = centre * wide_scale + narrow * narrow_scale
    outer = (wide**2).sum() - (centre**2).sum()
    return outer + (equivalent**2 / (wide_scale**2 + narrow_scale**2)).sum()


def _scale(gamma: Tensor, variance: Tensor) -> Tensor:
    """(C,) -> (C, 1, 1, 1), a constant for the gradient."""
    return ops.stop_gradient(gamma / ops.sqrt(variance + BATCH_NORM_EPS)).reshape(-1, 1, 1, 1)
