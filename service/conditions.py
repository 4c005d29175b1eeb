"""Which answers a condition holds for: `all`, `not confident`, `score < 0.5`, and these with `and` and `or`.

1. `and` binds more tightly than `or`, as everywhere;
2. an answer that cannot say whether it is confident is neither `confident` nor `not confident`;
3. what is no condition is an error that says what one looks like.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

FORM = (
    "all, confident, not confident or score < 0.5 (also <=, > and >=), or several of these with and / or between them"
)
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_SCORE = re.compile(r"score ?(<=|>=|<|>) ?(0|1|[01]?\.[0-9]{1,9}|[01]\.)")

# Score of the best label, and whether the answer is confident, if that is known -> does it hold?
_Term = Callable[[float, bool | None], bool]
_WORDS: dict[str, _Term] = {
    "all": lambda _, __: True,
    "confident": lambda _, confident: confident is True,
    "not confident": lambda _, confident: confident is False,
}


@dataclass(frozen=True)
class Condition:
    """`needs_threshold`: it never holds, or never fully, for bundles that cannot say whether they are confident."""

    text: str
    needs_threshold: bool
    _alternatives: tuple[tuple[_Term, ...], ...]

    @classmethod
    def read(cls, text: str) -> Condition:
        """Raises ValueError."""
        words = " ".join(text.lower().split())
        alternatives = tuple(tuple(map(_term, part.split(" and "))) for part in words.split(" or "))
        return cls(words, "confident" in words, alternatives)

    def holds(self, score: float, confident: bool | None) -> bool:
        return any(all(term(score, confident) for term in terms) for terms in self._alternatives)


def _term(text: str) -> _Term:
    if term := _WORDS.get(text.strip()):
        return term
    if found := _SCORE.fullmatch(text.strip()):
        compare, bound = _COMPARISONS[found[1]], float(found[2])
        return lambda score, _: compare(score, bound)
    raise ValueError(f"{text.strip()!r} is no condition: {FORM}")
