"""RepVGG weights of any project -> a classifier, fused in numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hub.conversion import graph
from hub.conversion.classifier import Classifier
from hub.conversion.running import Tensors
from hub.errors import Unusable
from models.manifest import Preprocess
from weights import forward, layout, readers
from weights.sources import SOURCES, check_names, translate
from weights.variants import VARIANTS


def classifier(
    path: Path,
    source: str,
    variant: str,
    spec: Preprocess,
    labels: Sequence[str],
    *,
    dataset: str,
    recipe: str,
    say: Callable[[str], None],
    averaged: bool = False,
) -> Classifier:
    """`source`: a key of SOURCES; `averaged` takes the averaged weights from a file that has both.

    Raises Unusable and WeightsError.
    """
    contents = readers.read(path, averaged=averaged)
    for remark in contents.remarks:
        say(f"{path.name}: {remark}")
    check_names(contents.arrays, SOURCES[source])
    weights, _ = translate(contents.arrays, SOURCES[source])
    if (found := len(weights.get("classifier.bias", labels))) != len(labels):
        raise Unusable(f"{path.name} has {found} classes, but its labels or num_classes say {len(labels)}")
    fused = layout.fused(weights, VARIANTS[variant], len(labels))
    return Classifier(
        variant=variant,
        parameters=sum(array.size for array in fused.values()),
        graph=graph.repvgg(fused, VARIANTS[variant], spec.input_size).SerializeToString(),
        input=graph.INPUT,
        output=graph.OUTPUT,
        preprocess=spec,
        labels=labels,
        truth=partial(_logits, weights, variant),
        framework=f"numpy {np.__version__}, onnx {onnx.__version__}",
        dataset=dataset,
        recipe=recipe,
    )


def _logits(weights: Any, variant: str, tensors: Tensors) -> Tensors:
    return forward.logits(weights, VARIANTS[variant], tensors)
