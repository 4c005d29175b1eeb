from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engines.runtimes.fake import FakeEngine

IMAGES = np.random.default_rng(0).normal(size=(7, 3, 8, 8)).astype(np.float32)


def test_equal_pixels_give_equal_logits_to_the_last_bit_in_any_batch() -> None:
    engine = FakeEngine(10, 8)
    together = engine.infer(IMAGES)
    for image, logits in zip(IMAGES, together, strict=True):
        np.testing.assert_array_equal(engine.infer(image[None])[0], logits)
    np.testing.assert_array_equal(engine.infer(IMAGES[::-1])[::-1], together)
    assert len(np.unique(together, axis=0)) == len(IMAGES)
    assert together.dtype == np.float32


def test_it_waits_for_its_gate() -> None:
    gate = threading.Event()
    answers: list[NDArray[np.float32]] = []
    engine = FakeEngine(10, 8, gate=gate)
    thread = threading.Thread(target=lambda: answers.append(engine.infer(IMAGES)))
    thread.start()
    assert answers == []
    gate.set()
    thread.join(timeout=30)
    assert len(answers) == 1


def test_it_fails_on_demand() -> None:
    def fail(images: NDArray[np.float32]) -> None:
        if len(images) > 1:
            raise RuntimeError("too many")

    engine = FakeEngine(10, 8, fail=fail)
    assert engine.infer(IMAGES[:1]).shape == (1, 10)
    with pytest.raises(RuntimeError, match="too many"):
        engine.infer(IMAGES)


def test_its_answer_can_be_set() -> None:
    engine = FakeEngine(10, 8, answer=lambda images: np.full((len(images), 10), 7, np.float32))
    assert (engine.infer(IMAGES) == 7).all()


def test_a_batch_takes_the_time_given() -> None:
    import time

    started = time.monotonic()
    FakeEngine(10, 8, seconds_per_batch=0.02).infer(IMAGES)
    assert time.monotonic() - started >= 0.02
