"""How long a batch takes on this engine, and how fast a queue drains: measured beforehand, and learnt from what ran.

Between the measured sizes the time is interpolated, beyond them it is the nearest one's; 0 before anything is measured.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# The part of an image's time that its batch may take in the engine: the rest is for decoding and for waiting.
ENGINE_SHARE = 0.4
# The part of a moving average that the newest batch makes.
NEWEST_WEIGHT = 0.2
# What the newest batch weighs in the speed at which a queue drains. Less: with several slots batches finish in bursts.
NEWEST_DRAINED_WEIGHT = 0.05
FADING = 0.99
# What a batch costs beside the engine's work: two changes of threads, a turn of the event loop. Measured under load.
BATCH_S = 0.001
# A larger batch pays only if it makes an image cheaper than this; measurements of a moment differ by as much.
WORTH_IT = 0.95


def smallest_useful_batch(image_s: Mapping[int, float]) -> int:
    """Of batch sizes and the seconds that an image then takes, with all slots at work, the smallest one that is almost
    as cheap as the cheapest: whoever comes waits for the batches that are under way, and so does who has left."""
    costs_s = {images: seconds + BATCH_S / images for images, seconds in image_s.items()}
    return min(images for images, cost_s in costs_s.items() if WORTH_IT * cost_s <= min(costs_s.values()))


class BatchSpeed:
    """Moving averages of the seconds that a batch of 1..`max_batch_size` images takes, and of those that each image
    takes off a queue while all slots of the engine are busy."""

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
        """While others waited all the time, `images` left the engine within `seconds`."""
        self._drained_images += NEWEST_DRAINED_WEIGHT * (images - self._drained_images)
        self._drained_s += NEWEST_DRAINED_WEIGHT * (seconds - self._drained_s)

    @property
    def image_s(self) -> float:
        """Seconds that an image takes off the queue under full load; before any was seen, in full batches one by one.

        Of the moving averages' ratio, not an average of ratios: bursts must not count more than the pauses between.
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
        """Forget a little. Called when images are refused because of an estimate: as no batch of them runs, nothing
        else would ever correct one that is too high."""
        self._measured = {images: seconds * FADING for images, seconds in self._measured.items()}
        self._curve_s *= FADING
        self._drained_s *= FADING
