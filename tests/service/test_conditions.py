from __future__ import annotations

import pytest

from service.conditions import Condition


@pytest.mark.parametrize(
    ("text", "score", "confident", "holds"),
    [
        ("all", 1.0, True, True),
        ("not confident", 0.9, False, True),
        ("not confident", 0.9, True, False),
        ("not confident", 0.9, None, False),
        ("confident", 0.9, None, False),
        ("Not  Confident", 0.9, False, True),
        ("score < 0.5", 0.49, None, True),
        ("score < 0.5", 0.5, None, False),
        ("score<=.5", 0.5, None, True),
        ("score >0.5", 0.5, None, False),
        ("score>= 1", 1.0, None, True),
        ("confident and score < 0.5", 0.4, True, True),
        ("confident and score < 0.5", 0.4, False, False),
        ("not confident or score < 0.5", 0.9, False, True),
        ("not confident or confident and score < 0.5", 0.4, True, True),
        ("not confident or confident and score < 0.5", 0.6, True, False),
        ("score > 0.2 and score < 0.4", 0.3, None, True),
    ],
)
def test_and_binds_more_tightly_than_or(text: str, score: float, confident: bool | None, holds: bool) -> None:
    assert Condition.read(text).holds(score, confident) is holds


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "none", "not", "unsure", "confident confident", "not not confident", "and", "all or", "or all"),
        *("score", "score < ", "score < 50", "score < x", "score = 0.5", "0.5 > score", "score < 1e-3", "score < -1"),
        *("score < 0.5; rm", "(all)", "all, confident"),
    ],
)
def test_what_is_no_condition_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no condition: all, confident, not confident or score < 0\.5"):
        Condition.read(text)


def test_it_knows_whether_it_needs_a_threshold() -> None:
    assert Condition.read("all or not confident").needs_threshold
    assert not Condition.read("score < 0.5").needs_threshold
