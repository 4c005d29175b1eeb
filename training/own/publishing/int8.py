"""The network in int8, if it loses no more accuracy than training.quantize allows.

1. it is calibrated on photos that were fitted on, and judged on those that fp32 was judged on;
2. under cross-validation each photo is classified by a classifier that did not see it, rounded as in int8;
3. a network that loses too much stays out of the bundle, and the output says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from models import golden
from models.errors import BundleError
from models.explanation.features import without_features
from models.explanation.head import Head
from models.manifest import Accuracy, Precision
from models.store import Bundle
from models.versions import write_version
from training.deploy import precisions
from training.deploy.lower import artifacts_of, equal_batches, tolerances_of
from training.errors import TrainingError
from training.own.backbone import Backbone, Floats
from training.own.classifier.figures import Answers
from training.own.photos.looking import look
from training.own.publishing.addition import Addition
from training.own.seen import Seen
from training.own.sizes import seconds_each

Heads = Mapping[int, tuple[NDArray[np.bool_], Head]]

CALIBRATED = 64  # photos
CALIBRATION = "minmax"  # percentiles take twice as long, and gave the same on 300 photos
MAX_TOP1_DROP = 0.005  # as training.quantize has it
STEPS = 127  # steps of a weight, on each side of zero
# The cost of a photo, in units of inference on all CPUs: to calibrate, and to decode and classify in int8.
CALIBRATION_COST, ANSWER_COST = 12.0, 3.0


def int8(
    draft: Bundle,
    seen: Seen,
    answers: Answers,
    heads: Heads,
    folder: Path,
    seconds: float,
    say: Callable[[str], None],
) -> Addition | None:
    """Work in `folder`. `heads`: which of the answered photos (N,) each classifier of cross-validation answered; empty
    if the network's own answered all. `seconds`: the time that is left."""
    backbone, spec = Backbone(draft), draft.manifest.preprocess
    fitted = [photo.path for photo, used in zip(seen.photos, seen.fitted, strict=True) if used]
    chosen = fitted[:: ceil(len(fitted) / CALIBRATED)]
    cost = CALIBRATION_COST * len(chosen) + ANSWER_COST * len(answers.photos)
    estimate = cost * seconds_each(backbone, spec.input_size)
    if estimate > seconds:
        say(f"no int8: measuring it takes about {estimate:.0f} s, and {max(0.0, seconds):.0f} s are left")
        return None
    try:
        return _measured(draft, seen, answers, heads, chosen, folder, say)
    except (BundleError, TrainingError) as error:
        say(f"no int8: {error}")
        return None


def _measured(
    draft: Bundle,
    seen: Seen,
    answers: Answers,
    heads: Heads,
    calibration: Sequence[Path],
    folder: Path,
    say: Callable[[str], None],
) -> Addition | None:
    spec = draft.manifest.preprocess
    source = without_features(onnx.load_model(draft.path(draft.artifact(("onnx",), "fp32"))))
    model = precisions.int8(source, equal_batches(calibration, spec), CALIBRATION)
    artifacts, files = artifacts_of(draft, {"int8": model})
    rounded = Backbone(write_version(draft, folder / "int8" / "1", artifacts, files), "int8")
    looks = look([seen.photos[index].path for index in answers.photos], [spec], rounded.compute, "int8")
    rows = np.stack([one.features[spec.input_size] for one in looks])
    order = [draft.labels.index(name) for name in seen.classes]
    given = _logits(rows, rounded.classifier(), heads, order).argmax(axis=1)
    top1: dict[Precision, float] = {"fp32": answers.accuracy, "int8": float((given == answers.labels).mean())}
    accuracy = Accuracy(top1=top1, max_top1_drop=MAX_TOP1_DROP)
    words = f"{top1['int8']:.1%} right, {top1['fp32']:.1%} in fp32"
    if (accuracy.drop("int8") or 0.0) > MAX_TOP1_DROP:
        say(f"no int8: {words}, and {MAX_TOP1_DROP:.1%} less is allowed")
        return None
    say(f"int8: {words}")
    tensors, expected = golden.load(draft)
    delta = float(np.abs(rounded.classifier()(rounded.compute(tensors)) - expected).max())
    return Addition(artifacts, files, tolerances_of(draft, {"int8": delta}), {"accuracy": accuracy})


def _logits(rows: Floats, own: Head, heads: Heads, order: list[int]) -> Floats:
    """(N, C) -> (N, K), classes in the order of `order`."""
    if not heads:
        return own(rows)[:, order]
    logits = np.empty((len(rows), len(order)), np.float32)
    for answered, head in heads.values():
        logits[answered] = _rounded(head)(rows[answered])
    return logits


def _rounded(head: Head) -> Head:
    """With one scale per class, as in training.deploy.precisions."""
    scale = np.maximum(np.abs(head.weight).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / STEPS
    return Head((np.round(head.weight / scale) * scale).astype(np.float32), head.bias)
