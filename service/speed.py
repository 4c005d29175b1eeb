"""How long a batch takes on this engine, learnt from the batches that ran.

Between the measured sizes the time is interpolated, beyond them it is the nearest one's; 0 before anything is measured.
"""

from __future__ import annotations

import numpy as np

# The part of a moving average that the newest batch makes.
NEWEST_WEIGHT = 0.2
FADING = 0.99


class BatchSpeed:
    """Moving averages of the seconds that a batch of 1..`max_batch_size` images takes."""

    def __init__(self, max_batch_size: int) -> None:
        self._sizes = np.arange(1, max_batch_size + 1)
        self._measured: dict[int, float] = {}
        self._curve_s = np.zeros(max_batch_size)

    def learn(self, images: int, seconds: float) -> None:
        """A batch of `images` took `seconds`."""
        old = self._measured.get(images, seconds)
        self._measured[images] = old + NEWEST_WEIGHT * (seconds - old)
        known = sorted(self._measured)
        self._curve_s = np.interp(self._sizes, known, [self._measured[size] for size in known])

    def batch_s(self, images: int) -> float:
        """Seconds for a batch of `images`, 0 for none."""
        return float(self._curve_s[images - 1]) if images else 0.0

    def most_images_within(self, seconds: float) -> int:
        """The largest batch that takes at most `seconds`; 1 if none does."""
        fitting = self._sizes[self._curve_s <= seconds]
        return int(fitting[-1]) if fitting.size else 1

    def fade(self) -> None:
        """Forget a little. Called when images are refused because of an estimate: as no batch of them runs, nothing
        else would ever correct one that is too high."""
        self._measured = {images: seconds * FADING for images, seconds in self._measured.items()}
        self._curve_s *= FADING
