"""An engine without a network, for tests and for load without arithmetic. Its logits are a function of the pixels.

Equal pixels give equal logits to the last bit, whatever batch they are in.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from models.manifest import Precision
    from models.store import Bundle

    Images = NDArray[np.float32]
    Logits = NDArray[np.float32]


class FakeEngine:
    """For each batch: waits for `gate`, calls `fail`, which may raise, sleeps `seconds_per_batch`, and calls `answer`.

    `fail` and `answer` get the batch, float32 (N, 3, S, S). All three are optional; by default the logits are cosines
    of the channels' mean values.
    """

    name = "fake"
    precision: Precision = "fp32"
    device = "none"

    def __init__(
        self,
        num_classes: int,
        input_size: int,
        *,
        seconds_per_batch: float = 0.0,
        gate: threading.Event | None = None,
        fail: Callable[[Images], None] | None = None,
        answer: Callable[[Images], Logits] | None = None,
    ) -> None:
        self.num_classes = num_classes
        self.input_size = input_size
        self.closed = False
        self._seconds_per_batch = seconds_per_batch
        self._gate = gate
        self._fail = fail
        self._answer = answer or self.logits

    @classmethod
    def open(cls, bundle: Bundle, precision: Precision, threads: int) -> FakeEngine:
        """Classes and input size are the bundle's; precision and threads are ignored."""
        return cls(bundle.manifest.network.num_classes, bundle.manifest.preprocess.input_size)

    def infer(self, images: Images) -> Logits:
        """float32 (N, 3, S, S) -> float32 logits (N, K)."""
        if self._gate is not None:
            self._gate.wait()
        if self._fail is not None:
            self._fail(images)
        if self._seconds_per_batch:
            time.sleep(self._seconds_per_batch)
        return self._answer(images)

    def logits(self, images: Images) -> Logits:
        """The default answer. Image by image, because a sum's last bit may depend on the shape of the array."""
        classes = np.arange(1, self.num_classes + 1, dtype=np.float32)
        weights = np.array([1.0, 2.0, 4.0], np.float32)
        phases = [np.float32(image.mean(axis=(1, 2)) @ weights) for image in images]
        return np.stack([np.cos(phase * classes) for phase in phases])

    def close(self) -> None:
        self.closed = True
