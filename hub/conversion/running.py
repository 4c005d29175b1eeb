"""Runs ONNX files during conversion."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hub.errors import Unusable

Tensors = NDArray[np.float32]
Run = Callable[[Tensors], Tensors]

# ONNX Runtime sends telemetry by default, and reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def open_onnx(content: bytes, source: str, target: str) -> Run:
    """A function (N, 3, S, S) -> (N, K): ONNX Runtime if it is installed, otherwise ONNX's own slow reference.

    It raises Unusable for a graph that cannot be run.
    """
    try:
        import onnxruntime
    except ImportError:
        return _reference(content, source, target)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Unusable(f"ONNX Runtime {onnxruntime.__version__} cannot open the graph: {_first_line(error)}") from error

    def run(tensors: Tensors) -> Tensors:
        try:
            return np.asarray(session.run([target], {source: tensors})[0])
        except Exception as error:
            raise Unusable(f"the graph fails on a batch of {len(tensors)}: {_first_line(error)}") from error

    return run


def _reference(content: bytes, source: str, target: str) -> Run:
    import onnx
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load_from_string(content))

    def run(tensors: Tensors) -> Tensors:
        try:
            found: list[Tensors] = evaluator.run([target], {source: tensors})  # type: ignore[assignment]
        except Exception as error:
            raise Unusable(f"the graph fails on a batch of {len(tensors)}: {_first_line(error)}") from error
        return np.asarray(found[0])

    return run


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
