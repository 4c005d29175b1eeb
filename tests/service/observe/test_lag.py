from __future__ import annotations

import pytest

from service.observe.lag import HALF_LIFE_S, LoopLag


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_approaches_what_is_measured() -> None:
    lag = LoopLag(Clock())
    assert lag.seconds == 0
    seen = []
    for _ in range(100):
        lag.note(0.010)
        seen.append(lag.seconds)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(0.010, rel=0.01)


def test_it_fades_by_time_and_ends_as_nothing() -> None:
    clock = Clock()
    lag = LoopLag(clock)
    for _ in range(100):
        lag.note(0.010)
    clock.now += HALF_LIFE_S
    assert lag.seconds == pytest.approx(0.005, rel=0.01)
    clock.now += 10 * HALF_LIFE_S
    assert lag.seconds == 0
