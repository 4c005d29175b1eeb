"""A batcher on a fake engine, whose time and answers a test controls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from service.classify.batching import Batcher, Inferred
from service.engines.runtimes.fake import FakeEngine
from service.observe.metrics import Metrics

SIZE, CLASSES, MAX_BATCH = 4, 5, 4
Run = Callable[[Coroutine[Any, Any, Any]], Any]
Image = NDArray[np.float32]

# The first pixel of an image says whether the engine can answer it.
GOOD, POISON, NAN, EXITS = 0.0, -1.0, -2.0, -3.0


def picture(seed: int, kind: float = GOOD) -> Image:
    image = np.random.default_rng(seed).random((3, SIZE, SIZE), dtype=np.float32)
    if kind != GOOD:
        image[0, 0, 0] = kind
    return image


gates: list[threading.Event] = []


class Clock:
    """Time passes only when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A batcher on a fake engine that waits for `gate` and fails on POISON; `batch_sizes` it was given."""

    slots: int = 1
    clock: Clock = field(default_factory=Clock)
    gate: threading.Event = field(default_factory=threading.Event)
    batch_sizes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        gates.append(self.gate)
        self.registry = CollectorRegistry()
        self.engine = FakeEngine(CLASSES, SIZE, gate=self.gate, fail=self._fail, answer=self._answer)
        self.batcher = Batcher(
            self.engine,
            max_batch_size=MAX_BATCH,
            metrics=Metrics(self.registry),
            slots=self.slots,
            clock=self.clock,
        )

    def _fail(self, images: Image) -> None:
        self.batch_sizes.append(len(images))
        if (images[:, 0, 0, 0] == POISON).any():
            raise RuntimeError("poison")
        if (images[:, 0, 0, 0] == EXITS).any():
            raise SystemExit("an engine may raise anything")

    def _answer(self, images: Image) -> Image:
        logits = self.engine.logits(images)
        logits[images[:, 0, 0, 0] == NAN, 1] = np.nan
        return logits

    def submit(self, image: Image, deadline: float | None = None) -> asyncio.Task[Inferred]:
        return asyncio.create_task(self.batcher.submit(image, deadline))

    async def occupy_the_engine(self) -> asyncio.Task[Inferred]:
        """The engine is busy with one image until the gate opens."""
        task = self.submit(picture(999))
        await ticks()
        assert not self.batcher.idle
        return task

    def is_right(self, inferred: Inferred, image: Image) -> bool:
        return np.array_equal(inferred.logits, self.engine.logits(image[None])[0])

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


async def ticks() -> None:
    """Enough turns of the loop for everything that is ready to run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def outcomes(*tasks: asyncio.Task[Inferred]) -> list[Inferred | BaseException]:
    return await asyncio.gather(*tasks, return_exceptions=True)
