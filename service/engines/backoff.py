"""How long to wait before something that died is started again: for engines here, and for worker processes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Seconds. A life that ends within `soon_s` of its start makes the next delay four times as long, from
    `first_delay_s` up to `longest_delay_s`; one that lasts longer resets it."""

    first_delay_s: float = 0.1
    longest_delay_s: float = 30.0
    soon_s: float = 60.0

    def delay_s(self, early_ends: int) -> float:
        """Before the start that follows `early_ends` short lives in a row, 1 or more."""
        return min(self.longest_delay_s, self.first_delay_s * 4.0 ** min(early_ends - 1, 16))


class Restarts:
    """The state of one restart loop."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._early_ends = 0

    def delay_after(self, life_s: float) -> float:
        """`life_s`: how long the last life was -> how long to wait before the next one, seconds."""
        self._early_ends = self._early_ends + 1 if life_s < self._backoff.soon_s else 1
        return self._backoff.delay_s(self._early_ends)
