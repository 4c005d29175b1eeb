"""Parameters of a request: those of its query, and those in the JSON of v2 and Vertex AI.

1. a value that is not valid is named, with what is allowed;
2. a name that nearly matches a known one (`topk`, `time_out`, `k`) is rejected rather than silently ignored;
3. names that resemble none are ignored: proxies and browsers add their own (`utm_source`, `_`);
4. a parameter that is given twice with different values is rejected, and so is one in the query of a route that takes
   it in its body.

Everything here raises RequestError `invalid_parameter`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from models.fields import Slug
from service.api.problems import RequestError

DEFAULT_TOP_K = 5
# Names in clients of other services, and forms that are more than one typing slip away.
_OTHERWISE = {"top_k": r"k|top|topk\w*", "timeout_ms": r"timeout\w*", "timeout": r"timeout\w+", "verbose": r"verbos\w*"}
# One slip turns a shorter name into another word.
_LEAST_LETTERS = 4
# A query can hold thousands of names; nobody mistypes so many.
MOST_NAMES_COMPARED = 50
# Characters of a value. A valid one has fewer.
MOST_SHOWN = 100

_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_OFF = ("0", "false", "no", "off")


def read_query(request: Request, known: Sequence[str]) -> dict[str, str]:
    """The query's parameters that are `known`."""
    if not request.scope.get("query_string"):
        return {}
    pairs = request.query_params.multi_items()
    check_names((name for name, _ in pairs), known)
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in known and values.setdefault(name, value) != value:
            raise invalid(f"{name} is given twice, as {values[name]} and as {value}")
    return values


def refuse_query(request: Request, known: Sequence[str]) -> None:
    """For a route whose body has the parameters `known`: in the query they would be silently ignored."""
    if not request.scope.get("query_string"):
        return
    names = [name for name, _ in request.query_params.multi_items()]
    check_names(names, known)
    if given := next((name for name in names if name in known), None):
        raise invalid(f"{given} is not a query parameter here: give it in the parameters of the body")


def check_names(given: Iterable[str], known: Sequence[str]) -> None:
    """Reject an unknown name that is close to a known one."""
    for name in islice(dict.fromkeys(name for name in given if name not in known), MOST_NAMES_COMPARED):
        if likely := next((wanted for wanted in known if _nearly(name[:100].lower(), wanted)), None):
            raise invalid(f"there is no parameter {name}; did you mean {likely}?")


def _nearly(name: str, known: str) -> bool:
    """One letter is missing, extra, wrong or swapped with its neighbour, regardless of characters between letters."""
    name = name.removeprefix("amp;")  # left of an `&` that was escaped for HTML
    letters, wanted = (re.sub(r"[\W_]", "", text) for text in (name, known))
    if _one_slip(name, known) or (len(letters) >= _LEAST_LETTERS and _one_slip(letters, wanted)):
        return True
    return known in _OTHERWISE and re.fullmatch(_OTHERWISE[known], letters) is not None


def _one_slip(one: str, other: str) -> bool:
    """Or none."""
    for _ in "beginning", "end":
        alike = next(
            (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
        )
        one, other = one[alike:][::-1], other[alike:][::-1]
    return max(len(one), len(other)) <= 1 or (len(one) == len(other) == 2 and one == other[::-1])


def as_texts(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Parameters in JSON as in a query. A list or an object may be huge and is never a valid value: its type is
    enough."""
    return {
        name: str(value)[:MOST_SHOWN] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
        for name, value in parameters.items()
    }


def read_top_k(parameters: Mapping[str, str], classes: int) -> int:
    text = parameters.get("top_k")
    if text is None:
        return min(DEFAULT_TOP_K, classes)
    if not _WHOLE_NUMBER.fullmatch(text) or not 1 <= int(text) <= classes:
        raise invalid(f"top_k={text} is not a whole number in 1..{classes}")
    return int(text)


def read_timeout_s(parameters: Mapping[str, str], most_ms: int) -> float | None:
    """The client's deadline for the whole request; None if it gives none. `most_ms` is the server's."""
    text = parameters.get("timeout_ms")
    if text is None:
        return None
    if not _WHOLE_NUMBER.fullmatch(text) or int(text) < 1:
        raise invalid(
            f"timeout_ms={text} is not a whole number of milliseconds, 1 or above (over {most_ms} counts as {most_ms})"
        )
    return int(text) / 1000


def read_version(parameters: Mapping[str, str]) -> str | None:
    """The version may still not exist."""
    text = parameters.get("version")
    try:
        return None if text is None else TypeAdapter(Slug).validate_python(text)
    except ValidationError:
        raise invalid(f"version={text} cannot be the version of a bundle") from None


def read_flag(parameters: Mapping[str, str], name: str) -> bool:
    """`?verbose` and `?verbose=1` switch it on, `?verbose=false` does not."""
    return name in parameters and parameters[name].lower() not in _OFF


def invalid(detail: str) -> RequestError:
    return RequestError("invalid_parameter", detail)
