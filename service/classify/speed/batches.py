"""How long a batch takes on this engine, and how fast the queue drains: measured at start-up, then updated by batches.

1. between measured batch sizes the time is interpolated, beyond them it is that of the nearest one; 0 before any
   measurement;
2. estimates that no batch has confirmed for a while reject no one (`speed.averages`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import numpy as np

from service.classify.speed.averages import Average, newest_weight, trusted_s

# The share of an image's time that its batch may take in the engine: the rest is for decoding and waiting.
ENGINE_SHARE = 0.4
# The weight of the newest batch in a moving average.
NEWEST_WEIGHT = 0.2
# Of the engine's time, for images that are let through although they seem too slow. Where a machine has had little to
# do, the next image may take ten times as long as under load (benchmarks/LOG.md): with a small share, tight deadlines
# would be rejected for ever.
PROBE_SHARE = 0.5
# As NEWEST_WEIGHT, for the speed at which the queue drains. It is smaller, because with several slots batches finish in
# bursts.
NEWEST_DRAINED_WEIGHT = 0.05
DRAINED_AGE_S = 60.0
# The cost of a batch besides the engine's work: two thread switches, a turn of the event loop. Measured under load.
BATCH_S = 0.001
# A larger batch pays off only if an image costs less than this share of the cost before: short measurements vary by as
# much.
WORTH_IT = 0.95


def smallest_useful_batch(image_s: Mapping[int, float]) -> int:
    """The smallest batch size that is almost as cheap as the cheapest one. `image_s`: batch size -> seconds an image
    then takes, with all slots busy.

    Smaller is better otherwise: every new image waits for the batches in the engine, and those of callers that have
    left cannot be stopped."""
    costs_s = {images: seconds + BATCH_S / images for images, seconds in image_s.items()}
    return min(images for images, cost_s in costs_s.items() if WORTH_IT * cost_s <= min(costs_s.values()))


class BatchSpeed:
    """Moving averages: seconds for a batch of 1..`max_batch_size` images, and seconds until each image leaves the queue
    while all slots of the engine are busy."""

    def __init__(self, max_batch_size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sizes = np.arange(1, max_batch_size + 1)
        self._measured: dict[int, Average] = {}
        self._newest_at = self._drained_at = -math.inf
        self._curve_s = np.zeros(max_batch_size)
        self._drained_images = self._drained_s = 0.0

    def learn(self, images: int, seconds: float) -> None:
        """A batch of `images` took `seconds`."""
        now = self._newest_at = self._clock()
        average = self._measured.setdefault(images, Average(seconds, now))
        average.learn(seconds, now, NEWEST_WEIGHT, trusted_s(average.value, PROBE_SHARE))
        known = sorted(self._measured)
        self._curve_s = np.interp(self._sizes, known, [self._measured[size].value for size in known])

    def learn_drained(self, images: int, seconds: float) -> None:
        """`images` left the engine within `seconds`, while others waited all the time."""
        now = self._clock()
        weight = newest_weight(now - self._drained_at, NEWEST_DRAINED_WEIGHT, DRAINED_AGE_S)
        self._drained_images += weight * (images - self._drained_images)
        self._drained_s += weight * (seconds - self._drained_s)
        self._drained_at = now

    @property
    def may_reject(self) -> bool:
        """Has a batch confirmed the estimates recently?"""
        return self._clock() - self._newest_at < trusted_s(self.batch_s(1), PROBE_SHARE)

    @property
    def image_s(self) -> float:
        """Seconds per image under full load. Before any is seen: of full batches, one after the other.

        It is the ratio of moving averages, not an average of ratios: bursts must not outweigh the pauses between them.
        """
        if self._drained_images:
            return self._drained_s / self._drained_images
        return float(self._curve_s[-1]) / len(self._sizes)

    def batch_s(self, images: int) -> float:
        """Seconds for a batch of `images`, 0 for none."""
        return float(self._curve_s[min(images, len(self._sizes)) - 1]) if images else 0.0

    def most_images_within(self, seconds: float) -> int:
        """The largest batch that takes at most `seconds`; 1 if none does."""
        fitting = self._sizes[self._curve_s <= seconds]
        return int(fitting[-1]) if fitting.size else 1
