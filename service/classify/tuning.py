"""What is measured on the opened engine before anybody waits: it decides batch size, and what is promised at first.

1. every batch size that will come is warm where a new one costs a part of the objective that is noticed;
2. without a number from the user, batches are as large as pays when all slots of the engine are at work, and leave room
   for the latency objective;
3. the speed of a queue is measured as it will be: with all slots of the engine at work.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median_high

import numpy as np

from service.classify.speed import ENGINE_SHARE, WORTH_IT, BatchSpeed, smallest_useful_batch
from service.engines.base import Engine
from service.engines.capabilities import CAPABILITIES

LARGEST_BATCH = 64
MOST_WARM_UP_SIZES = 32
NOTICED = 0.1  # of the latency objective
RUNS = 2  # of each size that is measured, after the one that allocates
ROUNDS = 3  # with all slots at work


@dataclass(frozen=True)
class Tuning:
    """`batch_s`: seconds of a batch by its number of images; `image_s`: of an image with all slots at work."""

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
            if _falls_no_more(list(image_s.values())):
                break
    chosen = max_batch_size or smallest_useful_batch(image_s)
    able = CAPABILITIES.get(engine.name)
    if able and able.new_batch_sizes_cost and median_high(new_size_s) > NOTICED * objective_s:
        for images in range(1, min(chosen, MOST_WARM_UP_SIZES) + 1):
            _together_s(engine, slots, images)
    drained_s = image_s.get(chosen) or _image_s(engine, slots, chosen)
    return Tuning(chosen, {n: s for n, s in batch_s.items() if n <= chosen}, drained_s)


def _sizes(largest: int) -> list[int]:
    """1, 2, 4 ... and the largest."""
    return sorted({*(1 << power for power in range(largest.bit_length())), largest})


def _first_and_fastest_s(engine: Engine, images: int) -> tuple[float, float]:
    """Seconds for the first batch of `images`, and for the fastest: other work on the machine can only slow it down."""
    pixels = np.zeros((images, 3, engine.input_size, engine.input_size), np.float32)
    times = [time.perf_counter()]
    for _ in range(1 + RUNS):
        engine.infer(pixels)
        times.append(time.perf_counter())
    first_s, *others_s = np.diff(times).tolist()
    return first_s, min(others_s)


def _falls_no_more(seconds: list[float]) -> bool:
    """Of an image, by growing batches: did the last two sizes change nothing for the better?"""
    return len(seconds) > 2 and min(seconds[-2:]) > WORTH_IT * min(seconds[:-2])


def _image_s(engine: Engine, slots: int, images: int) -> float:
    """Seconds of an image in batches of `images`, with all slots at work."""
    return min(_together_s(engine, slots, images) for _ in range(ROUNDS)) / (slots * images)


def _together_s(engine: Engine, slots: int, images: int) -> float:
    """Seconds until each slot has computed one batch of `images`, all at once."""
    pixels = np.zeros((images, 3, engine.input_size, engine.input_size), np.float32)
    all_there = threading.Barrier(slots)

    def compute() -> float:
        all_there.wait()
        started = time.perf_counter()
        engine.infer(pixels)
        return time.perf_counter() - started

    with ThreadPoolExecutor(slots) as pool:
        return max(future.result() for future in [pool.submit(compute) for _ in range(slots)])
