from __future__ import annotations

import pytest

from service.classify.speed.batches import NEWEST_WEIGHT, PROBE_SHARE, BatchSpeed


def test_before_any_measurement_every_time_is_zero() -> None:
    speed = BatchSpeed(8)
    assert speed.batch_s(8) == 0.0
    assert speed.most_images_within(0.0) == 8


def test_times_are_interpolated_between_measured_sizes_and_constant_beyond() -> None:
    speed = BatchSpeed(8)
    speed.learn(2, 1.0)
    speed.learn(4, 2.0)
    assert [speed.batch_s(images) for images in (0, 1, 2, 3, 4, 8)] == [0.0, 1.0, 1.0, 1.5, 2.0, 2.0]


def test_the_largest_batch_within_a_time() -> None:
    speed = BatchSpeed(4)
    speed.learn(1, 1.0)
    speed.learn(4, 4.0)
    assert [speed.most_images_within(seconds) for seconds in (0.5, 1.0, 2.9, 3.0, 9.0)] == [1, 1, 2, 3, 4]


def test_the_average_moves_towards_the_newest_measurement() -> None:
    speed = BatchSpeed(1, clock=lambda: 0.0)
    speed.learn(1, 1.0)
    speed.learn(1, 2.0)
    assert speed.batch_s(1) == pytest.approx(1.0 + NEWEST_WEIGHT)
    for _ in range(50):
        speed.learn(1, 2.0)
    assert speed.batch_s(1) == pytest.approx(2.0, rel=1e-3)


def test_old_measurements_fade_by_time_when_new_ones_come() -> None:
    now = 0.0
    speed = BatchSpeed(1, clock=lambda: now)
    speed.learn(1, 100.0)
    now = 60.0
    assert speed.batch_s(1) == 100.0
    speed.learn(1, 1.0)
    assert speed.batch_s(1) == pytest.approx(1.0, rel=1e-2)


def test_an_estimate_that_no_batch_has_confirmed_for_a_while_rejects_no_one() -> None:
    now = 0.0
    speed = BatchSpeed(1, clock=lambda: now)
    assert not speed.may_reject
    speed.learn(1, 0.01)
    assert speed.may_reject
    now = 0.01 / PROBE_SHARE + 0.001
    assert not speed.may_reject


def test_a_batch_that_measures_an_old_estimate_again_replaces_it_only_if_it_is_quicker() -> None:
    now = 0.0
    speed = BatchSpeed(1, clock=lambda: now)
    speed.learn(1, 0.03)  # on a cold machine
    now = 0.1
    speed.learn(1, 0.002)
    assert speed.batch_s(1) == pytest.approx(0.002)
    now = 0.2
    speed.learn(1, 0.03)  # one that was held up
    assert speed.batch_s(1) < 0.01
