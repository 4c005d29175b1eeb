"""What every peer does with an image: our own way from pixels to tensor, ONNX Runtime, our own top-5.

So the peers differ from us, and from each other, only in serving. Settings come from the environment, set by
`benchmarks.peers.peers`: MODEL (a bundle's folder), PORT, WORKERS, THREADS, SPIN, MAX_BATCH, WAIT_MS.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.preprocess import preprocess
from models.scores.topk import scores_of, top_k
from models.store import open_bundle

HOST = "127.0.0.1"
PORT = int(os.environ["PORT"])
WORKERS = int(os.environ["WORKERS"])
MAX_BATCH = int(os.environ.get("MAX_BATCH", "1"))
WAIT_MS = float(os.environ.get("WAIT_MS", "0"))


class Work:
    """One warm session with THREADS threads."""

    def __init__(self) -> None:
        bundle = open_bundle(os.environ["MODEL"])
        artifact = bundle.artifact(["onnx"], "fp32")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", os.environ.get("SPIN", "1"))
        self._session = onnxruntime.InferenceSession(
            str(bundle.path(artifact)), options, providers=["CPUExecutionProvider"]
        )
        self._input = artifact.input
        self._labels = bundle.labels
        self._manifest = bundle.manifest
        self.spec = bundle.manifest.preprocess
        for size in {1, MAX_BATCH}:
            self.logits(np.zeros((size, 3, self.spec.input_size, self.spec.input_size), np.float32))

    def pixels(self, encoded: bytes) -> NDArray[np.float32]:
        """-> float32 (3, S, S). Raises ImageError."""
        return preprocess(encoded, self.spec)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 (N, K)."""
        logits: NDArray[np.float32] = self._session.run(None, {self._input: images})[0]
        return logits

    def answer(self, logits: NDArray[np.float32]) -> dict[str, Any]:
        """(K,) -> the five best, as our own service writes them."""
        best = top_k(scores_of(logits, self._manifest), self._labels, 5)
        return {"predictions": [prediction._asdict() for prediction in best]}
