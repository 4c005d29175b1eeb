"""How long images take to decode, by kind of file and by size: learnt from every image that a thread has worked on.

1. an image is judged by others like it: no client can distort the estimates for other images;
2. before any image like it, the nearest size counts, or what the machine has shown so far;
3. an estimate that has not been confirmed for a while rejects no one (`speed.averages`): of such images one is let
   through;
4. for an unseen image, only `usual_s` is known: a quarter of the latest images took less, and each of them counts as
   much as any other, however slow it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from models.formats.sizes import Stated
from service.classify.speed.averages import Average, trusted_s

# The time of a photo on a 2024 server, JPEG between the faster BMP and the slower PNG (benchmarks/LOG.md). Only its
# shape matters: measurements scale it.
IMAGE_S = 0.00015
PIXEL_S = 15e-9
# The weight of the newest image in a moving average, if it follows immediately after others.
NEWEST_WEIGHT = 0.1
# Of a thread's time, for images that are let through although they seem too slow.
PROBE_SHARE = 0.05
# An image moves `usual_s` by a factor, so that a slow one counts for no more than others.
QUARTILE = 0.25
STEP = 0.05


class DecodeSpeed:
    """Moving averages by kind and by power of two of the pixels. `expected_s` may be called in any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.usual_s = IMAGE_S
        # By kind and size, and of all: seconds, relative to the formula above.
        self._known: dict[tuple[str, int], Average] = {}
        self._machine: Average | None = None
        self._probed_at: dict[tuple[str, int], float] = {}

    def expected_s(self, image: Stated) -> float:
        known = self._known.get(_key(image)) or self._nearest(image) or self._machine
        return _formula_s(image) * (known.value if known else 1.0)

    def learn(self, image: Stated, seconds: float) -> None:
        """A thread has worked on it for this long, whatever the outcome."""
        slowness, now, key = seconds / _formula_s(image), self._clock(), _key(image)
        for average in (self._known.get(key), self._machine):
            if average:
                average.learn(slowness, now, NEWEST_WEIGHT, _trusted_s(_formula_s(image) * average.value))
        self._known.setdefault(key, Average(slowness, now))
        self._machine = self._machine or Average(slowness, now)
        self.usual_s *= math.exp(STEP * (QUARTILE if seconds > self.usual_s else QUARTILE - 1))

    def may_reject(self, image: Stated, *, alone: bool = True) -> bool:
        """Has the estimate been confirmed recently? If not, the caller is let through. An image that is not `alone` is
        let through only if there was a measurement: the first one should not be taken with many images."""
        now, key = self._clock(), _key(image)
        known = self._known.get(key)
        if known is None and not alone:
            return True
        trusted_until = max(known.at if known else -math.inf, self._probed_at.get(key, -math.inf))
        if now - trusted_until < _trusted_s(self.expected_s(image)):
            return True
        self._probed_at[key] = now
        return False

    def _nearest(self, image: Stated) -> Average | None:
        kind, power = _key(image)
        powers = (other for same, other in list(self._known) if same == kind)
        nearest = min(powers, key=lambda other: abs(other - power), default=None)
        return None if nearest is None else self._known[kind, nearest]


def _key(image: Stated) -> tuple[str, int]:
    return image.kind, image.pixels.bit_length()


def _trusted_s(seconds: float) -> float:
    return trusted_s(seconds, PROBE_SHARE)


def _formula_s(image: Stated) -> float:
    return IMAGE_S + image.pixels * PIXEL_S
