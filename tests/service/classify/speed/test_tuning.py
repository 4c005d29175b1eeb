from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from service.classify.speed.batches import BatchSpeed, smallest_useful_batch
from service.classify.speed.tuning import MOST_WARM_UP_SIZES, tune
from service.engines.runtimes.fake import FakeEngine

Images = NDArray[np.float32]


@pytest.mark.parametrize(
    ("image_s", "smallest"),
    [
        ({1: 0.010, 2: 0.0055, 4: 0.0030, 8: 0.0025, 16: 0.0022}, 16),
        (
            {1: 0.100, 2: 0.055, 4: 0.030, 8: 0.025, 16: 0.0245},
            8,
        ),  # the gain of 16 is within the error
        ({1: 0.100, 2: 0.100}, 1),
        ({1: 0.100, 2: 0.110, 4: 0.090}, 4),
        ({1: 0.0001, 2: 0.0001, 4: 0.0001}, 4),  # the overhead of each batch dominates
    ],
)
def test_the_batch_is_the_smallest_one_that_costs_no_throughput(image_s: dict[int, float], smallest: int) -> None:
    assert smallest_useful_batch(image_s) == smallest


class Measured(FakeEngine):
    """An engine that takes `seconds(images)`, and `new_size_s` more for the first batch of a size. It records its batch
    sizes and how many batches ran at once."""

    def __init__(self, seconds: Callable[[int], float], name: str = "fake", new_size_s: float = 0.0) -> None:
        super().__init__(5, 4, answer=self._take)
        self.name = name
        self.sizes: list[int] = []
        self.most_at_once = 0
        self._seconds = seconds
        self._new_size_s = new_size_s
        self._running = 0
        self._lock = threading.Lock()

    def _take(self, images: Images) -> Images:
        with self._lock:
            new_size_s = 0.0 if len(images) in self.sizes else self._new_size_s
            self.sizes.append(len(images))
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
        time.sleep(self._seconds(len(images)) + new_size_s)
        with self._lock:
            self._running -= 1
        return self.logits(images)


def test_batches_grow_while_images_get_cheaper_and_the_objective_allows_it() -> None:
    engine = Measured(lambda images: 0.02 + 0.001 * images)
    tuning = tune(engine, slots=1, max_batch_size=None, objective_s=0.2)  # 0.08 s for a batch
    assert tuning.max_batch_size == 32
    assert set(tuning.batch_s) == {1, 2, 4, 8, 16, 32}
    assert tuning.image_s == pytest.approx(0.052 / 32, rel=0.5)


def test_batches_do_not_grow_if_images_do_not_get_cheaper() -> None:
    engine = Measured(lambda images: 0.02 * images**1.3)
    assert tune(engine, slots=1, max_batch_size=None, objective_s=10.0).max_batch_size == 1
    assert max(engine.sizes) == 4  # two sizes in a row gained nothing


def test_a_configured_batch_size_is_kept_and_measured() -> None:
    engine = Measured(lambda images: 0.02 * images)
    tuning = tune(engine, slots=1, max_batch_size=3, objective_s=0.001)
    assert tuning.max_batch_size == 3
    assert set(tuning.batch_s) == {1, 2, 3}
    speed = BatchSpeed(3)
    tuning.teach(speed)
    assert speed.batch_s(2) == tuning.batch_s[2]
    assert speed.image_s == pytest.approx(tuning.image_s)


def test_the_speed_of_the_queue_is_measured_with_all_slots_busy() -> None:
    engine = Measured(lambda images: 0.02)
    tuning = tune(engine, slots=3, max_batch_size=2, objective_s=1.0)
    assert engine.most_at_once == 3
    assert tuning.image_s == pytest.approx(0.02 / 6, rel=0.9)


@pytest.mark.parametrize(
    ("name", "new_size_s", "slots", "most", "warm"),
    [
        ("openvino", 0.02, 2, 7, {*range(1, 8)}),
        ("openvino", 0.02, 1, 100, {*range(1, MOST_WARM_UP_SIZES + 1), 64, 100}),
        ("openvino", 0.0, 1, 7, {1, 2, 4, 7}),
        ("onnxruntime", 0.02, 1, 7, {1, 2, 4, 7}),  # the first batch of any size allocates
    ],
)
def test_every_batch_size_is_warmed_up_if_a_new_one_takes_noticeable_time(
    name: str, new_size_s: float, slots: int, most: int, warm: set[int]
) -> None:
    engine = Measured(lambda images: 0.0, name, new_size_s)
    tune(engine, slots=slots, max_batch_size=most, objective_s=0.1)
    assert set(engine.sizes) == warm
    assert all(engine.sizes.count(size) >= slots for size in warm)
