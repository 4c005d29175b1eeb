"""How long to wait before what died is started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Seconds. Each end within `soon_s` of the start quadruples the delay before the next start, from `first_delay_s`
    to `longest_delay_s`; who asks meanwhile waits until the process has been away for `wait_s`.

    With these a batch full of images that kill it is over, one by one, before /livez takes the engine for stuck.
    """

    first_delay_s: float = 0.1
    longest_delay_s: float = 30.0
    soon_s: float = 60.0
    wait_s: float = 8.0

    def delay_s(self, early_ends: int) -> float:
        """Before the start that follows this many early ends in a row, 1 or more."""
        return min(self.longest_delay_s, self.first_delay_s * 4.0 ** min(early_ends - 1, 16))


PATIENCE = Patience()
