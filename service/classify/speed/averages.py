"""Moving averages of measured times, which decide what is rejected.

1. old measurements fade with time, when new ones arrive, not with the requests that they reject;
2. an estimate that has not been confirmed for a while rejects no one: the next piece of work measures it again;
3. if that takes less time than expected, it replaces the estimate: what was learnt under load, when every thread waits
   for others, would otherwise reject everybody long after the load is gone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# After this time of silence, the newest measurement has a weight of 63 %.
AGE_S = 5.0
# However slow the work, its estimate is measured again after this time.
MOST_TRUSTED_S = 20.0


def newest_weight(age_s: float, least: float, forgotten_s: float = AGE_S) -> float:
    """Of a measurement that follows on the one before it after `age_s`."""
    return max(least, 1.0 - math.exp(-age_s / forgotten_s))


def trusted_s(seconds: float, share: float) -> float:
    """How long an estimate of `seconds` may reject requests, if measuring it again may take `share` of the time."""
    return min(seconds / share, MOST_TRUSTED_S)


@dataclass
class Average:
    """`value`: as measured up to the time `at`, seconds."""

    value: float
    at: float

    def learn(self, value: float, now: float, least_weight: float, trusted_for_s: float) -> None:
        """`least_weight`: of a measurement that follows immediately; `trusted_for_s`: as `trusted_s` says of the
        estimate so far."""
        age_s = now - self.at
        replaces = value < self.value and age_s >= trusted_for_s
        self.value += (1.0 if replaces else newest_weight(age_s, least_weight)) * (value - self.value)
        self.at = now
