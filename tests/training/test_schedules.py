import math

import pytest

from training.schedules import warmup_cosine


def test_the_warm_up_rises_linearly_and_meets_the_cosine():
    rates = warmup_cosine(base_lr=0.1, warmup_lr=0.02, min_lr=0.0, warmup_steps=4, total_steps=104)
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])


def test_the_cosine_is_the_closed_form():
    rates = warmup_cosine(base_lr=1.0, warmup_lr=0.0, min_lr=0.1, warmup_steps=0, total_steps=100)
    assert rates[50] == pytest.approx(0.55)
    assert rates[25] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert rates == sorted(rates, reverse=True)


def test_there_is_one_rate_a_step():
    assert len(warmup_cosine(base_lr=1, warmup_lr=0, min_lr=0, warmup_steps=7, total_steps=31)) == 31


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="does not fit into 5 steps"):
        warmup_cosine(base_lr=1, warmup_lr=0, min_lr=0, warmup_steps=6, total_steps=5)
