"""A run's first weights from a bundle, whose kernels are fused: fine-tuning.

1. the run starts from the served network: with `fused` from its kernels as they are, else the branches that training
   needs, or with `kernel_norms` the batch norms after its kernels, compute the same function, proven on one of its
   golden images to 1e-5 of the logits' deviation before the first step;
2. that holds in training too, since batch norms' statistics are those of the run's own first batches;
3. the classifier is kept if the classes have the same names, in any order, and is new otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from math import ceil
from typing import Any

import mindspore as ms
import numpy as np
from numpy.typing import NDArray

from models import golden
from models.errors import BundleError
from models.store import Bundle
from training.data.names import listed
from training.data.pipeline import Images, train_batches
from training.errors import CheckpointError
from training.network import moments, repvgg
from training.run.assembly import Run
from training.run.bundled.networks import class_ids, read_weights
from training.run.checkpoints import checkpoint
from weights.forward import logits
from weights.fuse import fold_norms
from weights.layout import BATCH_NORM_EPS
from weights.split import normed_weights, restate, split_weights
from weights.variants import VARIANTS, Variant

Array = NDArray[Any]
Weights = dict[str, Array]

MEASURED_IMAGES = 512  # at least, if there are that many: each has thousands of positions
PROVEN_TO = 1e-5  # of the standard deviation of the logits


def load(run: Run, bundle: Bundle, images: Images) -> str:
    """Load the bundle's weights into the run's network and its average -> what was done. Raises TrainingError."""
    variant, config, parameters = VARIANTS[run.config.arch], run.config, repvgg.weights(run.network)
    weights, form = read_weights(bundle), "its kernels are trained as they are served"
    if config.fused and not config.kernel_norms:
        _check_golden(bundle, variant, weights)
    else:
        weights, form = _train_form(run, bundle, variant, weights, images)
    _set_backbone(parameters, weights, bundle)
    rows = None if config.reset_classifier else class_ids(bundle.labels, images.classes)
    if rows:
        for name in ("classifier.weight", "classifier.bias"):
            parameters[name].set_data(ms.Tensor(weights[name][rows]))
    if run.ema:
        run.ema.restart()
    return f"starting from {bundle.folder}: {form}; {_about_classes(bundle.labels, images.classes, rows)}"


def _train_form(run: Run, bundle: Bundle, variant: Variant, fused: Weights, images: Images) -> tuple[Weights, str]:
    """-> the weights of a network with batch norms that computes the same, and what was done."""
    parameters, config = repvgg.weights(run.network), run.config
    split = (normed_weights if config.kernel_norms else split_weights)(fused, variant, BATCH_NORM_EPS)
    _set_backbone(parameters, split, bundle)
    batches = train_batches(images, config, 0, **run.process.image_shard)
    count = min(run.steps, ceil(MEASURED_IMAGES / config.batch_size))
    measured = moments.measure(run.network, (batch["image"] for batch in islice(batches, count)))
    split = restate(split, measured, BATCH_NORM_EPS)
    off = _prove(bundle, variant, fused, split)
    how = "get a batch norm each" if config.kernel_norms else "are split into branches"
    return split, (
        f"its kernels {how} (logits differ by {off:.1g} of their deviation), statistics of batch norms from "
        f"{count * config.batch_size} training images"
    )


def _set_backbone(parameters: Mapping[str, ms.Parameter], weights: Weights, bundle: Bundle) -> None:
    checkpoint.restore(checkpoint.backbone(parameters), checkpoint.backbone(weights), source=bundle.folder)


def _check_golden(bundle: Bundle, variant: Variant, weights: Weights) -> tuple[Array, Array]:
    """In float64: on some devices convolutions are not exact enough.

    -> a golden image and its logits by `weights`. Raises CheckpointError if they are not the golden ones.
    """
    try:
        tensors, expected = golden.load(bundle)
    except BundleError as error:
        raise CheckpointError(str(error)) from error
    read = _exact_logits(weights, variant, tensors[:1])
    wrong = _off(expected[:1], read)
    tolerance = bundle.manifest.golden.tolerance.get("fp32", 0.0) / _deviation(read)
    if not wrong <= tolerance:  # also true for NaN
        raise CheckpointError(
            f"{bundle.folder}: the logits of its weights differ from its golden ones by {wrong:.2g} deviations, "
            f"its tolerance is {tolerance:.2g}: the bundle is damaged, or its network is not what the manifest says"
        )
    return tensors[:1], read


def _prove(bundle: Bundle, variant: Variant, fused: Weights, split: Weights) -> float:
    """-> the largest difference of a logit, in standard deviations. Raises CheckpointError."""
    image, read = _check_golden(bundle, variant, fused)
    off = _off(_exact_logits(split, variant, image), read)
    if not off <= PROVEN_TO:
        raise CheckpointError(
            f"{bundle.folder}: in the form that is trained, its logits differ by {off:.2g} of their deviation, and at "
            f"most {PROVEN_TO:g} is allowed: its weights are too ill-conditioned to start from"
        )
    return off


def _exact_logits(weights: Weights, variant: Variant, image: Array) -> Array:
    exact = {name: array.astype(np.float64) for name, array in weights.items()}
    return logits(fold_norms(exact, BATCH_NORM_EPS), variant, image)


def _off(others: Array, read: Array) -> float:
    return float(np.max(np.abs(others - read))) / _deviation(read)


def _deviation(read: Array) -> float:
    return float(read.std()) or 1.0


def _about_classes(labels: Sequence[str], classes: Sequence[str], rows: list[int] | None) -> str:
    if rows:
        return f"its classifier is kept: the {len(classes)} classes are the same"
    return (
        f"the classifier is new: {len(classes)} classes ({listed(classes)}) instead of the bundle's {len(labels)} "
        f"({listed(labels)})"
    )
