"""Two forms of one network: for a batch that is alone, and for batches beside each other.

Like the engine files this one keeps to Python 3.7: an engine's own process reads it too.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Sides:
    """`alone` gets a batch that comes while no other is computed, never two at once; `beside` gets the others."""

    def __init__(self, alone: Infer, beside: Infer) -> None:
        self._alone = alone
        self._beside = beside
        self._calls = 0
        self._lock = threading.Lock()

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._lock:
            self._calls += 1
            infer = self._alone if self._calls == 1 else self._beside
        try:
            return infer(images)
        finally:
            with self._lock:
                self._calls -= 1
