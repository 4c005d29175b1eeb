from __future__ import annotations

import time

import numpy as np
import pytest

from service.engines.timing import images_per_second


@pytest.mark.parametrize(("seconds", "batch"), [(0.2, 8), (0.04, 4), (0.0, 1)])
def test_whole_batches_are_measured_or_as_many_images_as_fit_into_the_time(seconds: float, batch: int) -> None:
    sizes = []

    def infer(images: np.ndarray) -> None:
        sizes.append(len(images))
        time.sleep(0.002 * len(images))

    assert images_per_second(infer, np.zeros((8, 3, 4, 4), np.float32), seconds) > 0
    assert sizes[:2] == [1, 1]
    assert 1 <= sizes[-1] <= batch
    assert set(sizes[2:]) == {sizes[-1]}
    assert len(sizes) >= 4


def test_a_measurement_ends_once_its_fastest_runs_are_equal() -> None:
    runs = 0

    def infer(images: np.ndarray) -> None:
        nonlocal runs
        runs += 1
        time.sleep(0.01)

    speed = images_per_second(infer, np.zeros((1, 3, 4, 4), np.float32), seconds=3600)
    assert 0 < speed <= 100
    assert 6 <= runs < 1000
