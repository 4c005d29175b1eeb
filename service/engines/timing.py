"""Measures how fast an engine infers."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# Runs of a batch that a measurement wants to have time for: the first one may have to make kernels.
RUNS = 5
# It is over as soon as its fastest runs, so many, are equal but for this factor: the next would not be faster.
EQUAL_RUNS, EQUAL = 3, 1.05


def images_per_second(
    infer: Callable[[NDArray[np.float32]], object], images: NDArray[np.float32], seconds: float
) -> float:
    """The speed of the fastest of several batches, within about `seconds` at most; in whole batches of `images`, or of
    as many of them as fit into the time. The fastest, because other work on the machine can only slow a batch down.
    """
    give_up_at = time.perf_counter() + seconds
    infer(images[:1])
    alone_s = _seconds(infer, images[:1])
    batch = images[: max(1, int(seconds / RUNS / alone_s))]
    infer(batch)
    times_s = [_seconds(infer, batch)]
    while time.perf_counter() < give_up_at and not _is_settled(times_s):
        times_s.append(_seconds(infer, batch))
    return len(batch) / min(times_s)


def _is_settled(times_s: list[float]) -> bool:
    fastest = sorted(times_s)[:EQUAL_RUNS]
    return len(fastest) == EQUAL_RUNS and fastest[-1] <= EQUAL * fastest[0]


def _seconds(infer: Callable[[NDArray[np.float32]], object], images: NDArray[np.float32]) -> float:
    started = time.perf_counter()
    infer(images)
    return time.perf_counter() - started
