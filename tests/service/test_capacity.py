from __future__ import annotations

import math
from dataclasses import replace

import pytest

from service.capacity import BUSY, MEMORY_STEP_BYTES, Impossible, Limits, Measured, largest_batch, plan

# A CPU on which batches hardly pay, and an accelerator on which they do.
CPU = Measured(
    cpus=2,
    decode_s=0.004,
    batch_s={1: 0.010, 2: 0.018, 4: 0.0352, 8: 0.0704},
    shares_cpus=True,
    resident_bytes=200 << 20,
)
CARD = Measured(
    cpus=4,
    decode_s=0.004,
    batch_s={1: 0.002, 2: 0.002, 4: 0.003, 8: 0.004, 16: 0.008},
    shares_cpus=False,
    resident_bytes=200 << 20,
)
LIMITS = Limits(max_image_pixels=10**6, max_body_bytes=10**6, max_queue_images=10, input_size=32)


def test_the_batches_are_the_largest_that_leave_time_to_wait_for_one_and_to_be_in_the_next() -> None:
    assert largest_batch(CARD, 1.0) == 8
    assert largest_batch(CARD, 0.015) == 8  # 4 + 2 * 4 = 12 ms, 0.8 of 15
    assert largest_batch(CARD, 0.014) == 4


def test_a_larger_batch_that_gains_nothing_is_not_planned() -> None:
    assert largest_batch(CPU, 10.0) == 2  # 9 ms an image; 8.8 with 4 and with 8


@pytest.mark.parametrize("measured", [CPU, CARD])
@pytest.mark.parametrize("rate", [1, 50, 333, 2000, 12345])
def test_no_pod_is_too_busy_and_the_others_carry_the_load_of_one_that_is_away(measured: Measured, rate: float) -> None:
    found = plan(measured, LIMITS, rate=rate, deadline_s=0.2)
    assert rate / found.replicas <= BUSY * found.images_per_second
    assert rate / (found.replicas - 1) <= found.images_per_second
    if found.replicas > 2:
        fewer = found.replicas - 1
        assert rate / fewer > BUSY * found.images_per_second or rate / (fewer - 1) > found.images_per_second
    assert 2 <= found.min_replicas <= found.replicas < found.max_replicas


def test_cpus_that_decode_do_not_compute_meanwhile_and_a_card_does() -> None:
    assert CPU.images_per_second(2) == pytest.approx(1 / (0.009 + 0.004 / 2))
    assert CARD.images_per_second(1) == pytest.approx(1 / 0.002)
    assert CARD.images_per_second(8) == pytest.approx(1 / 0.001), "four CPUs decode no more, the card could do twice"


def test_the_autoscaler_aims_at_the_engine_s_part_of_a_busy_pod() -> None:
    assert plan(CARD, LIMITS, rate=100, deadline_s=1).busy_share == pytest.approx(BUSY * 0.0005 / 0.001)
    found = plan(CPU, LIMITS, rate=100, deadline_s=1)
    assert found.busy_share == pytest.approx(BUSY * 0.009 / 0.011)
    assert found.predicted_wait_s == pytest.approx(0.2)
    assert found.queue_depth == math.floor(0.2 * found.images_per_second)


def test_a_deadline_that_no_number_of_pods_can_keep_is_said_with_one_that_can_be_kept() -> None:
    with pytest.raises(Impossible, match="keeps 20 ms; plan with 30 ms or more") as caught:
        plan(CPU, LIMITS, rate=1, deadline_s=0.02)
    assert "24 ms alone in an idle pod" in str(caught.value)
    assert plan(CPU, LIMITS, rate=1, deadline_s=0.03).max_batch_size == 1


def test_memory_is_for_a_full_queue_and_a_largest_image_on_each_cpu() -> None:
    small = plan(CPU, LIMITS, rate=1, deadline_s=1).memory_bytes
    assert small == 512 << 20
    assert small % MEMORY_STEP_BYTES == 0
    large_images = plan(CPU, replace(LIMITS, max_image_pixels=10**8), rate=1, deadline_s=1).memory_bytes
    assert large_images - small >= 2 * 4 * 0.99 * 10**8
    long_queue = plan(CPU, replace(LIMITS, max_queue_images=10**5), rate=1, deadline_s=1).memory_bytes
    assert long_queue - small >= 0.99 * 10**5 * 3 * 32 * 32 * 4
