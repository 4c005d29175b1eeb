"""How long a batch takes on this engine, and how fast the queue drains: measured at start-up, then updated by batches.

Between measured batch sizes the time is interpolated, beyond them it is that of the nearest one; 0 before any
measurement.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# The share of an image's time that its batch may take in the engine: the rest is for decoding and waiting.
ENGINE_SHARE = 0.4
# The weight of the newest batch in a moving average.
NEWEST_WEIGHT = 0.2
# The same for the speed at which the queue drains. It is smaller, because with several slots batches finish in bursts.
NEWEST_DRAINED_WEIGHT = 0.05
FADING = 0.99
# The cost of a batch besides the engine's work: two thread switches, a turn of the event loop. Measured under load.
BATCH_S = 0.001
# A larger batch pays only if an image costs less than this share of before: short measurements differ by as much.
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

    def __init__(self, max_batch_size: int) -> None:
        self._sizes = np.arange(1, max_batch_size + 1)
        self._measured: dict[int, float] = {}
        self._curve_s = np.zeros(max_batch_size)
        self._drained_images = self._drained_s = 0.0

    def learn(self, images: int, seconds: float) -> None:
        """A batch of `images` took `seconds`."""
        old = self._measured.get(images, seconds)
        self._measured[images] = old + NEWEST_WEIGHT * (seconds - old)
        known = sorted(self._measured)
        self._curve_s = np.interp(self._sizes, known, [self._measured[size] for size in known])

    def learn_drained(self, images: int, seconds: float) -> None:
        """`images` left the engine within `seconds`, while others waited all the time."""
        self._drained_images += NEWEST_DRAINED_WEIGHT * (images - self._drained_images)
        self._drained_s += NEWEST_DRAINED_WEIGHT * (seconds - self._drained_s)

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

    def fade(self) -> None:
        """Lower the estimates a little. Called when they make us reject images: no batch of these runs, so nothing else
        would ever correct an estimate that is too high."""
        self._measured = {images: seconds * FADING for images, seconds in self._measured.items()}
        self._curve_s *= FADING
        self._drained_s *= FADING
