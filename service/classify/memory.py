"""The memory of unanswered requests: bodies that are arriving, queued images, abandoned decodes.

1. all of it together takes at most `max_bytes`, but a single request always fits;
2. bytes count when they have arrived, not when they are announced: an announcement costs its sender nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

from service.errors import Overloaded

RETRY_S = 1.0
# Most pixels of an image in a line, and the line's share of the decode threads: for web photos, for phone photos, and
# for the rest, of which a file of 2 kB can take 0.7 s.
LINES = ((4_000_000, 1.0), (20_000_000, 1.0), (sys.maxsize, 0.5))


def pixels_at_once(threads: int, largest: int) -> int:
    """How many are being decoded, at most, by `threads` and in images of up to `largest`."""
    pixels = 0
    for most_pixels, share in LINES:
        pixels += ceil(threads * share) * min(most_pixels, largest)
        if largest <= most_pixels:
            break
    return pixels


class Memory:
    """One account for the process. Use it within one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self.held_bytes = 0
        self._max_bytes = max_bytes

    def check(self, more_bytes: int, own_bytes: int = 0, retry_after_s: float = RETRY_S) -> None:
        """Is there room for `more_bytes`? `own_bytes`: what the same request holds already. Raises Overloaded."""
        others_bytes = self.held_bytes - own_bytes
        if others_bytes > 0 and self.held_bytes + more_bytes > self._max_bytes:
            raise Overloaded(f"{others_bytes} bytes of other requests are already waiting", retry_after_s)

    def take(self, taken_bytes: int) -> None:
        self.held_bytes += taken_bytes

    def give_back(self, taken_bytes: int) -> None:
        self.held_bytes -= taken_bytes

    @contextmanager
    def holding(self, taken_bytes: int) -> Iterator[None]:
        """Within it, this memory counts as taken."""
        self.take(taken_bytes)
        try:
            yield
        finally:
            self.give_back(taken_bytes)
