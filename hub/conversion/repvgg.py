"""RepVGG weights of any project -> a classifier, fused in numpy."""

from __future__ import annotations

from collections.abc import Sequence
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
from weights.sources import SOURCES, translate
from weights.variants import VARIANTS


def classifier(
    path: Path, source: str, variant: str, spec: Preprocess, labels: Sequence[str], *, dataset: str, recipe: str
) -> Classifier:
    """`source`: a key of SOURCES. Raises Unusable and WeightsError."""
    weights, _ = translate(readers.read(path), SOURCES[source])
    if (found := len(weights.get("classifier.bias", labels))) != len(labels):
        raise Unusable(f"{path.name} has {found} classes, its labels or num_classes say {len(labels)}")
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
