"""Measures how many images an engine computes per second."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# A batch is chosen so small that this many runs fit into the time: the first one may have to compile kernels.
RUNS = 5
# The measurement ends once this many of the fastest runs differ by at most this factor: more would not be faster.
EQUAL_RUNS, EQUAL = 3, 1.05


def images_per_second(
    infer: Callable[[NDArray[np.float32]], object], images: NDArray[np.float32], seconds: float
) -> float:
    """The speed of the fastest of several batches; takes at most about `seconds`. A batch is `images`, or as many of
    them as fit into the time. The fastest counts, because other work on the machine only ever slows a batch down.
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
