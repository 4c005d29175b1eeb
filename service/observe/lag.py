"""How long ready work waits for the event loop, measured by the requests themselves."""

from __future__ import annotations

import time
from collections.abc import Callable

# The weight of the newest measurement in the moving average.
NEWEST_WEIGHT = 0.1
# Without new ones, half of the lag is gone after this time.
HALF_LIFE_S = 0.1
NEGLIGIBLE_S = 0.0002


class LoopLag:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = 0.0
        self._measured_at = clock()

    def note(self, seconds: float) -> None:
        """Something that was ready has waited this long."""
        lag_s = self.seconds
        self._seconds = lag_s + NEWEST_WEIGHT * (seconds - lag_s)
        self._measured_at = self._clock()

    @property
    def seconds(self) -> float:
        """The moving average."""
        lag_s = float(self._seconds * 0.5 ** ((self._clock() - self._measured_at) / HALF_LIFE_S))
        return lag_s if lag_s > NEGLIGIBLE_S else 0.0
