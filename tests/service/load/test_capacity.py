from __future__ import annotations

import math
from dataclasses import replace

import pytest

from service.load.capacity import MAX_BUSY_SHARE, MEMORY_STEP_BYTES, Impossible, Measured, plan

CPU = Measured(cpus=2, decode_s=0.004, alone_s=0.010, image_s=0.009, shares_cpus=True, resident_bytes=200 << 20)
CARD = Measured(cpus=4, decode_s=0.004, alone_s=0.002, image_s=0.0005, shares_cpus=False, resident_bytes=200 << 20)


@pytest.mark.parametrize("measured", [CPU, CARD])
@pytest.mark.parametrize("rate", [1, 50, 333, 2000, 12345])
def test_no_pod_is_too_busy_and_the_others_carry_the_load_if_one_is_down(measured: Measured, rate: float) -> None:
    found = plan(measured, 0, rate=rate, deadline_s=0.2)
    speed = measured.images_per_second
    assert rate / found.replicas <= MAX_BUSY_SHARE * speed
    assert rate / (found.replicas - 1) <= speed
    if found.replicas > 2:
        fewer = found.replicas - 1
        assert rate / fewer > MAX_BUSY_SHARE * speed or rate / (fewer - 1) > speed
    assert 2 <= found.min_replicas <= found.replicas < found.max_replicas


def test_a_cpu_either_decodes_or_computes_while_a_card_computes_in_parallel() -> None:
    assert CPU.images_per_second == pytest.approx(1 / (0.009 + 0.004 / 2))
    assert CARD.images_per_second == pytest.approx(1 / 0.001), "four CPUs decode no more, the card could do twice"
    assert replace(CARD, cpus=16).images_per_second == pytest.approx(1 / 0.0005)


def test_the_autoscaler_aims_at_the_engine_s_part_of_a_busy_pod() -> None:
    assert plan(CARD, 0, rate=100, deadline_s=1).busy_share == pytest.approx(MAX_BUSY_SHARE * 0.0005 / 0.001)
    found = plan(CPU, 0, rate=100, deadline_s=1)
    assert found.busy_share == pytest.approx(MAX_BUSY_SHARE * 0.009 / 0.011)
    assert found.predicted_wait_s == pytest.approx(0.2)
    assert found.queue_depth == math.floor(0.2 * CPU.images_per_second)


def test_an_impossible_deadline_is_rejected_with_the_shortest_possible_one() -> None:
    with pytest.raises(Impossible, match="can meet 29 ms: a single image takes 4"):
        plan(CPU, 0, rate=1, deadline_s=0.029)
    with pytest.raises(Impossible, match="allow 30 ms or more"):
        plan(CPU, 0, rate=1, deadline_s=0.001)
    assert plan(CPU, 0, rate=1, deadline_s=0.03).replicas == 2


def test_memory_is_the_measured_plus_the_reserved_with_a_margin_in_whole_steps() -> None:
    assert plan(CPU, 0, rate=1, deadline_s=1).memory_bytes == MEMORY_STEP_BYTES
    assert plan(CPU, 5 << 20, rate=1, deadline_s=1).memory_bytes == 2 * MEMORY_STEP_BYTES
    assert plan(CPU, 1000 << 20, rate=1, deadline_s=1).memory_bytes == 6 * MEMORY_STEP_BYTES
