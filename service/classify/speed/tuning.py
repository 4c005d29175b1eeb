"""Measures the open engine before the service is ready: chooses the batch size and gives the first estimates of speed.

1. where the first batch of a size takes a noticeable part of the latency objective, every size is warmed up;
2. unless the user sets the largest batch, it is as large as pays off with all slots of the engine busy and as the
   latency objective allows;
3. the speed of the queue is measured under the conditions it is used for: with all slots of the engine busy.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median_high

import numpy as np

from service.classify.speed.batches import ENGINE_SHARE, WORTH_IT, BatchSpeed, smallest_useful_batch
from service.engine_table import ENGINES
from service.engines.base import Engine

LARGEST_BATCH = 64
MOST_WARM_UP_SIZES = 32
NOTICEABLE = 0.1  # share of the latency objective
RUNS = 2  # of each measured size, after the first one, which allocates memory
ROUNDS = 3  # with all slots busy


@dataclass(frozen=True)
class Tuning:
    """`batch_s`: number of images -> seconds for the batch. `image_s`: seconds per image with all slots busy."""

    max_batch_size: int
    batch_s: dict[int, float]
    image_s: float

    def teach(self, speed: BatchSpeed) -> None:
        for images, seconds in self.batch_s.items():
            speed.learn(images, seconds)
        speed.learn_drained(1, self.image_s)


def tune(engine: Engine, slots: int, max_batch_size: int | None, objective_s: float) -> Tuning:
    """Run batches of zeros; blocks. Raises what the engine raises."""
    limit_s = ENGINE_SHARE * objective_s
    batch_s: dict[int, float] = {}
    image_s: dict[int, float] = {}
    new_size_s: list[float] = []
    for images in _sizes(max_batch_size or LARGEST_BATCH):
        first_s, batch_s[images] = _first_and_fastest_s(engine, images)
        new_size_s.append(first_s - batch_s[images])
        if max_batch_size is None:
            if image_s and batch_s[images] > limit_s:
                break
            image_s[images] = _image_s(engine, slots, images)
            if _stopped_falling(list(image_s.values())):
                break
    chosen = max_batch_size or smallest_useful_batch(image_s)
    record = ENGINES.get(engine.name)
    if record and record.new_batch_sizes_cost and median_high(new_size_s) > NOTICEABLE * objective_s:
        for images in range(1, min(chosen, MOST_WARM_UP_SIZES) + 1):
            _together_s(engine, slots, images)
    drained_s = image_s.get(chosen) or _image_s(engine, slots, chosen)
    return Tuning(chosen, {n: s for n, s in batch_s.items() if n <= chosen}, drained_s)


def _sizes(largest: int) -> list[int]:
    """1, 2, 4 ... and the largest."""
    return sorted({*(1 << power for power in range(largest.bit_length())), largest})


def _first_and_fastest_s(engine: Engine, images: int) -> tuple[float, float]:
    """Seconds for the first batch of `images` and for the fastest one: other work on the machine only ever slows one
    down."""
    pixels = np.zeros((images, 3, engine.input_size, engine.input_size), np.float32)
    times = [time.perf_counter()]
    for _ in range(1 + RUNS):
        engine.infer(pixels)
        times.append(time.perf_counter())
    first_s, *others_s = np.diff(times).tolist()
    return first_s, min(others_s)


def _stopped_falling(image_s: list[float]) -> bool:
    """Seconds per image, by growing batch size: did the last two sizes bring no improvement?"""
    return len(image_s) > 2 and min(image_s[-2:]) > WORTH_IT * min(image_s[:-2])


def _image_s(engine: Engine, slots: int, images: int) -> float:
    """Seconds per image in batches of `images`, with all slots busy."""
    return min(_together_s(engine, slots, images) for _ in range(ROUNDS)) / (slots * images)


def _together_s(engine: Engine, slots: int, images: int) -> float:
    """Seconds until each slot has computed a batch of `images`, all at the same time."""
    pixels = np.zeros((images, 3, engine.input_size, engine.input_size), np.float32)
    all_ready = threading.Barrier(slots)

    def compute() -> float:
        all_ready.wait()
        started = time.perf_counter()
        engine.infer(pixels)
        return time.perf_counter() - started

    with ThreadPoolExecutor(slots) as pool:
        return max(future.result() for future in [pool.submit(compute) for _ in range(slots)])
