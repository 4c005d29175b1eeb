"""What a classification request means for the objectives.

The promise: an image of up to 4 megapixels is answered within `objective_ms`, counted from the last byte of its
request; n images, or n times the pixels, within n times as long.

1. what the service fails to do counts: errors, rejections, missed deadlines that are no shorter than the promise;
2. what a client causes does not: invalid requests and images, a deadline shorter than the promise, an upload that does
   not arrive, leaving before the promise is due, asking again despite Retry-After;
3. one image that the service fails on makes the request a failed one, whatever happened to the others;
4. a client that left after the promise was due counts as answered slowly: perhaps it left for that reason.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal, get_args

PIXELS_PER_PROMISE = 4_000_000

Result = Literal["good", "slow", "failed", "excluded"]
RESULTS: tuple[Result, ...] = get_args(Result)
# As in nginx: the client closed the connection before there was an answer.
CLIENT_LEFT = 499
# Problem codes: rejections and deadlines, for which it matters what the client asked for.
LATE = frozenset({"overloaded", "deadline_exceeded"})
OURS = frozenset({"internal_error", "not_ready", "draining"})


@dataclass(frozen=True)
class Work:
    """`codes`: the problem code of the request, and those of its images. `read_s`: when its body was read, None if it
    never was; `limit_s`: the deadline that applied; `promises`: how many times the promise its images amount to;
    `ignores_retry_after`: the client asked again too early, while the service answers others."""

    status: int
    codes: Set[str]
    elapsed_s: float
    read_s: float | None
    limit_s: float
    promises: float = 1.0
    ignores_retry_after: bool = False

    def result(self, objective_s: float) -> Result:
        promise_s = objective_s * self.promises
        if self.status == CLIENT_LEFT:
            return "slow" if self.read_s is not None and self._worked_s > promise_s else "excluded"
        if self.codes & OURS:
            return "failed"
        if self.codes & LATE:
            return "excluded" if self._is_late_by_itself(promise_s) else "failed"
        if self.status >= HTTPStatus.BAD_REQUEST:
            return "failed" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "excluded"
        return "slow" if self._worked_s > promise_s else "good"

    @property
    def _worked_s(self) -> float:
        return self.elapsed_s - (self.read_s or 0.0)

    def _is_late_by_itself(self, promise_s: float) -> bool:
        never_arrived = self.read_s is None and self.elapsed_s >= self.limit_s
        rude = self.ignores_retry_after and "deadline_exceeded" not in self.codes  # which no Retry-After comes with
        return rude or never_arrived or self.limit_s - (self.read_s or 0.0) < promise_s
