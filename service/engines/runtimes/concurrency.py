"""Two compiled forms of one network: for a batch that runs alone, and for batches that run at the same time.

Like the engine files this one keeps to Python 3.7, because an engine's own process reads it too.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    # Images, and how many of the network's outputs are wanted -> these outputs.
    Infer = Callable[[NDArray[np.float32], int], Sequence[NDArray[np.float32]]]


class AloneOrShared:
    """`alone` gets a batch that comes while no other is running, never two at once; `shared` gets the others.

    Raises RuntimeError once it is closed.
    """

    def __init__(self, alone: Infer, shared: Infer) -> None:
        self._forms: tuple[Infer, Infer] | None = (alone, shared)
        self._calls = 0
        self._lock = threading.Lock()

    def __call__(self, images: NDArray[np.float32], outputs: int) -> Sequence[NDArray[np.float32]]:
        if self._forms is None:
            raise RuntimeError("the engine is closed")
        alone, shared = self._forms
        with self._lock:
            self._calls += 1
            infer = alone if self._calls == 1 else shared
        try:
            return infer(images, outputs)
        finally:
            with self._lock:
                self._calls -= 1

    def close(self) -> None:
        """Both forms are let go of."""
        self._forms = None
