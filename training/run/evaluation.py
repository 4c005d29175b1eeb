"""Top-1 and top-5 accuracy of a network; with several ranks, over the images of all of them. Or, where several labels
may apply, its logits.

Logits that are not finite end an evaluation with an error: they never become an accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from mindspore import Tensor, nn
from tqdm import tqdm

from training.accuracy.finite import check_finite
from training.accuracy.multi_label import LabelScores
from training.config import TrainConfig
from training.data.pipeline import Batch, Images, evaluation_batches, evaluation_spec
from training.run.distributed.device import SINGLE_PROCESS, Process
from training.run.distributed.ranks import total


def evaluate_images(
    network: nn.Cell,
    images: Images,
    config: TrainConfig,
    process: Process = SINGLE_PROCESS,
    watch: Callable[[Iterator[Batch]], Iterator[Batch]] = iter,
) -> tuple[int, float, float]:
    """-> number of images, top-1 and top-5 as fractions. `watch` wraps the batches and may raise between two."""
    spec, workers = evaluation_spec(config), config.num_parallel_workers
    batches = watch(evaluation_batches(images, spec, config.batch_size, workers, **process.image_shard))
    count = math.ceil(len(images) / (config.batch_size * process.size))
    return evaluate(network, tqdm(batches, "evaluate", count, leave=False, disable=process.hides_progress), process)


def evaluate_labels(
    network: nn.Cell,
    images: Images,
    config: TrainConfig,
    watch: Callable[[Iterator[Batch]], Iterator[Batch]] = iter,
    *,
    hides_progress: bool | None = None,
) -> LabelScores:
    """For images with several labels. Raises TrainingError for logits that are not finite."""
    network.set_train(False)
    batches = watch(evaluation_batches(images, evaluation_spec(config), config.batch_size, config.num_parallel_workers))
    count = math.ceil(len(images) / config.batch_size)
    bar = tqdm(batches, "evaluate", count, leave=False, disable=hides_progress)
    rows = [check_finite(network(Tensor(batch.images)).asnumpy()[: batch.count]) for batch in bar]
    return LabelScores(np.concatenate(rows), images.labels)


def evaluate(network: nn.Cell, batches: Iterable[Batch], process: Process = SINGLE_PROCESS) -> tuple[int, float, float]:
    """-> number of images of all ranks, top-1 and top-5 as fractions; top-5 is over min(5, classes).

    Raises TrainingError for logits that are not finite.
    """
    network.set_train(False)
    count, top1, top5 = 0, 0, 0
    for batch in batches:
        logits = check_finite(network(Tensor(batch.images)).asnumpy()[: batch.count])
        ranked = np.argsort(-logits, axis=1, kind="stable")[:, :5] == batch.labels[: batch.count, None]
        count += batch.count
        top1 += int(ranked[:, 0].sum())
        top5 += int(ranked.any(axis=1).sum())
    count, top1, top5 = (int(number) for number in total([count, top1, top5], process))
    return count, top1 / count, top5 / count
