from __future__ import annotations

import pytest

from models.formats.sizes import UNKNOWN, Stated
from service.classify.speed.decoding import IMAGE_S, PIXEL_S, DecodeSpeed

SMALL, LARGE = Stated("jpeg", 100_000), Stated("jpeg", 12_000_000)
BOMB = Stated("lossless webp", 50_000_000)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_before_any_image_a_formula_counts(clock: Clock) -> None:
    assert DecodeSpeed(clock).expected_s(LARGE) == IMAGE_S + 12_000_000 * PIXEL_S


def test_images_of_the_same_kind_and_size_teach_what_they_take(clock: Clock) -> None:
    speed = DecodeSpeed(clock)
    for _ in range(100):
        speed.learn(LARGE, 0.5)
        speed.learn(SMALL, 0.001)
    assert speed.expected_s(LARGE) == pytest.approx(0.5)
    assert speed.expected_s(SMALL) == pytest.approx(0.001)


def test_before_any_image_like_it_the_nearest_size_counts(clock: Clock) -> None:
    speed = DecodeSpeed(clock)
    speed.learn(SMALL, 3 * (IMAGE_S + SMALL.pixels * PIXEL_S))
    assert speed.expected_s(LARGE) == pytest.approx(3 * (IMAGE_S + LARGE.pixels * PIXEL_S))


def test_nothing_that_one_client_sends_makes_the_service_wrong_about_other_images(clock: Clock) -> None:
    speed = DecodeSpeed(clock)
    speed.learn(SMALL, 0.001)
    for _ in range(100):
        speed.learn(BOMB, 30.0)
        speed.learn(UNKNOWN, 1.0)
    assert speed.expected_s(SMALL) == 0.001


def test_estimates_fade_by_time_and_not_by_rejections(clock: Clock) -> None:
    speed = DecodeSpeed(clock)
    speed.learn(SMALL, 9.0)
    assert all(speed.may_reject(SMALL) for _ in range(1000))
    assert speed.expected_s(SMALL) == 9.0
    clock.now = 60.0
    speed.learn(SMALL, 0.001)
    assert speed.expected_s(SMALL) == pytest.approx(0.001, rel=0.1)


def test_one_image_measures_an_old_estimate_again_and_a_slow_one_is_trusted_for_longer(clock: Clock) -> None:
    speed = DecodeSpeed(clock)
    speed.learn(SMALL, 0.001)
    speed.learn(BOMB, 0.7)
    clock.now = 2.0
    assert (speed.may_reject(SMALL), speed.may_reject(BOMB)) == (False, True)
    assert speed.may_reject(SMALL)  # one is on its way
    clock.now = 20.0
    assert not speed.may_reject(BOMB)


def test_an_image_that_measures_an_old_estimate_again_replaces_it_if_it_is_quicker(clock: Clock) -> None:
    speed = DecodeSpeed(clock)
    speed.learn(SMALL, 0.05)
    clock.now = 0.5
    speed.learn(SMALL, 0.05)  # within the time for which the estimate is trusted
    speed.learn(SMALL, 0.001)
    assert speed.expected_s(SMALL) > 0.04
    clock.now = 2.0
    speed.learn(SMALL, 0.001)
    assert speed.expected_s(SMALL) == pytest.approx(0.001)


def test_many_images_at_once_are_no_first_measurement(clock: Clock) -> None:
    speed = DecodeSpeed(clock)
    assert speed.may_reject(LARGE, alone=False)
    assert not speed.may_reject(LARGE)


def test_the_usual_image_is_one_of_the_quicker_ones_however_slow_others_are(clock: Clock) -> None:
    speed = DecodeSpeed(clock)
    for _ in range(1000):
        speed.learn(SMALL, 0.002)
    assert speed.usual_s == pytest.approx(0.002, rel=0.1)
    for _ in range(1000):
        for image, seconds in ((SMALL, 0.002), (BOMB, 30.0), (BOMB, 30.0)):
            speed.learn(image, seconds)
    assert speed.usual_s == pytest.approx(0.002, rel=0.1)
