"""From the start of the process to its end: starting, then serving or failed, then draining.

1. the socket listens while the model is opened, and tells the truth meanwhile;
2. draining is announced while requests are still answered, so that nobody is turned away;
3. a start that fails is kept, for the process to end with its reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.classifier import Classifier
from service.engines.base import Engine
from service.errors import NotReady
from service.metrics import Metrics
from service.settings import Settings

RETRY_WHILE_STARTING_S = 1.0

log = logging.getLogger(__name__)


class Lifecycle:
    """`classifier` is there once the model serves; `failure` if it never will; `opened` is set in either case."""

    def __init__(self, settings: Settings, metrics: Metrics, engine: Engine | None = None) -> None:
        self.classifier: Classifier | None = None
        self.failure: Exception | None = None
        self.draining = False
        self.opened = asyncio.Event()
        self._settings = settings
        self._metrics = metrics
        self._engine = engine

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Opens in the background; on leaving, finishes what was accepted and closes."""
        opening = asyncio.create_task(self._open())
        lag = asyncio.create_task(self._metrics.watch_event_loop())
        try:
            yield
        finally:
            self.drain()
            for task in (opening, lag):
                task.cancel()
            await asyncio.gather(opening, lag, return_exceptions=True)
            if self.classifier is not None:
                await self.classifier.close(self._settings.timeout_ms / 1000)

    async def _open(self) -> None:
        try:
            self.classifier = await Classifier.open(self._settings, self._metrics, engine=self._engine)
        except Exception as error:
            log.debug("the start failed", exc_info=True)
            self.failure = error
        self.opened.set()

    def drain(self) -> None:
        """From now on `/readyz` says no; requests are still answered."""
        self.draining = True

    def serving(self) -> Classifier:
        """Raises NotReady before the model serves."""
        if self.classifier is None:
            raise NotReady(self._not_ready(), RETRY_WHILE_STARTING_S)
        return self.classifier

    @property
    def state_of_opening(self) -> str:
        """pending, ok or failed."""
        if self.failure is not None:
            return "failed"
        return "pending" if self.classifier is None else "ok"

    def _not_ready(self) -> str:
        if self.failure is not None:
            return "the model could not be opened; the server's log tells why"
        return "the model is being opened and checked"
