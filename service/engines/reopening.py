"""An engine in this process that can be opened again, where its runtime raises but lives.

1. it is closed and opened again in the background, and used again only after the golden check;
2. who asks meanwhile is told at once when to come again;
3. an opening that fails is tried again, later each time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.manifest import Precision
from service.engines.backoff import PATIENCE, Patience
from service.engines.base import Engine
from service.errors import NotReady

log = logging.getLogger(__name__)


class ReopeningEngine:
    """`engine` is open; `reopen` gives another one like it, checked, and may raise anything."""

    def __init__(self, engine: Engine, reopen: Callable[[], Engine], patience: Patience = PATIENCE) -> None:
        self.name: str = engine.name
        self.precision: Precision = engine.precision
        self.device: str = engine.device
        self.input_size = engine.input_size
        self.num_classes = engine.num_classes
        self._engine: Engine | None = engine
        self._reopen = reopen
        self._patience = patience
        self._changed = threading.Condition()
        self._calls = 0
        self._closed = False
        self._away_since = self._expected_back = 0.0
        self._opener: threading.Thread | None = None

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K). Raises NotReady, and what the engine raises."""
        with self._changed:
            if self._engine is None:
                back_in_s = max(0.0, self._expected_back - time.monotonic())
                raise NotReady("the engine failed and is being opened again", back_in_s)
            engine = self._engine
            self._calls += 1
        try:
            return engine.infer(images)
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    @property
    def away_s(self) -> float:
        """How long it has been away, seconds; 0 while it is there."""
        with self._changed:
            return 0.0 if self._engine else time.monotonic() - self._away_since

    def restart(self) -> None:
        """Begin to open it again; does not wait."""
        with self._changed:
            if self._engine is None or self._closed:
                return
            failed, self._engine = self._engine, None
            self._away_since = time.monotonic()
            self._opener = threading.Thread(target=self._replace, args=(failed,), name="engine-opener", daemon=True)
        self._opener.start()

    def _replace(self, failed: Engine) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._calls)
        failed.close()
        failures = 0
        while not self._closed and not self._open_again():
            failures += 1
            self._pause(self._patience.delay_s(failures))

    def _open_again(self) -> bool:
        try:
            engine = self._reopen()
        except Exception:  # a runtime may raise anything
            log.exception("the engine could not be opened again")
            return False
        with self._changed:
            self._engine = engine
        log.info("the engine is open again after %.1f s", time.monotonic() - self._away_since)
        return True

    def _pause(self, delay_s: float) -> None:
        with self._changed:
            self._expected_back = time.monotonic() + delay_s
            self._changed.wait_for(lambda: self._closed, delay_s)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._opener is not None:
            self._opener.join()
        if self._engine is not None:
            self._engine.close()
