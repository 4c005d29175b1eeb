"""What the tests of this room share: an open classifier on the fake engine, and images that are slow to decode."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from service.classify.classifier import Classifier
from service.engines.runtimes.fake import FakeEngine
from service.observe.metrics import Metrics
from service.settings import Settings

Run = Callable[[Coroutine[Any, Any, Any]], Any]
DrawImage = Callable[..., bytes]
Images = NDArray[np.float32]


def far() -> float:
    return time.monotonic() + 60.0


class Opened:
    """`async with Opened(bundle) as it`: a classifier on the fake engine (its gate is open).

    Deduplication is off unless a test turns it on, because most tests send the same image several times.
    """

    def __init__(self, bundle: Path, *, fail: Callable[[Images], None] | None = None, **settings: Any) -> None:
        self.settings = Settings(model=str(bundle), **{"single_flight": "off", **settings})
        self.registry = CollectorRegistry()
        self.gate = threading.Event()
        self.engine = FakeEngine(10, 32, gate=self.gate, fail=fail)

    async def __aenter__(self) -> Opened:
        self.gate.set()
        self.classifier = await Classifier.open(self.settings, Metrics(self.registry), engine=self.engine)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        await self.classifier.close(30.0)

    def classify(self, *images: bytes, deadline: float | None = None) -> asyncio.Task[list[Any]]:
        return asyncio.create_task(self.classifier.classify(images, top_k=3, deadline=deadline or far()))

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Decoding happens in threads: turn the loop until it shows."""
        give_up_at = time.monotonic() + 30.0
        while not is_so():
            assert time.monotonic() < give_up_at
            await asyncio.sleep(0)

    async def occupied(self, image: bytes) -> asyncio.Task[list[Any]]:
        """The engine is busy with `image` until the gate opens."""
        self.gate.clear()
        task = self.classify(image)
        await self.until(lambda: not self.classifier.batcher.idle)
        return task

    def value(self, sample: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(sample, labels)


class SlowBytes(bytes):
    """An image whose decoding waits for `gate` and is remembered in `begun`."""

    gate: threading.Event
    begun: threading.Event

    @classmethod
    def of(cls, image: bytes) -> SlowBytes:
        slow = cls(image)
        slow.gate, slow.begun = threading.Event(), threading.Event()
        return slow

    def __bool__(self) -> bool:
        self.begun.set()
        return self.gate.wait(timeout=60)
