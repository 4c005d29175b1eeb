from __future__ import annotations

import pytest

from service.classify.speed import NEWEST_WEIGHT, BatchSpeed


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
    speed = BatchSpeed(1)
    speed.learn(1, 1.0)
    speed.learn(1, 2.0)
    assert speed.batch_s(1) == pytest.approx(1.0 + NEWEST_WEIGHT)
    for _ in range(50):
        speed.learn(1, 2.0)
    assert speed.batch_s(1) == pytest.approx(2.0, rel=1e-3)


def test_fading_lowers_every_estimate_and_the_next_measurement_starts_from_there() -> None:
    speed = BatchSpeed(2)
    speed.learn(1, 1.0)
    speed.fade()
    assert speed.batch_s(2) < 1.0
    faded = speed.batch_s(1)
    speed.learn(1, faded)
    assert speed.batch_s(1) == pytest.approx(faded)
