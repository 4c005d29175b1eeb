"""What is said to the server about one batch, without saying it: steps go out, what came of them comes in.

1. only what may pass is tried again: 503, 429, a lost connection (to classify twice harms nobody); and only as long as
   the time lasts;
2. `Retry-After` is waited for, and a little more, so that those who were refused together do not come back together;
3. images that were answered are not sent again;
4. the server is told how much time is left, so that it works for nobody who has gone;
5. an image that cannot be decoded is a result, however the images fell into batches; whatever else fails is raised.

As httpx does with its authentication flows, so that the two clients differ only in how they send and sleep.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx

from repvgg_client.errors import ClientError, ConnectionFailed, ProblemError
from repvgg_client.images import Encoded
from repvgg_client.results import ImageFault, Result

# The server's own 504 says more than our giving up: it gets this long to arrive.
GRACE_S = 1.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
PAUSE_SPREAD = 0.25
TRY_AGAIN_STATUSES = (429, 503)
TRY_AGAIN_CODES = frozenset({"overloaded", "not_ready", "draining"})
IMAGE_FAULTS = frozenset({"undecodable_image", "too_many_pixels"})
LOST = (httpx.NetworkError, httpx.RemoteProtocolError)


@dataclass(frozen=True)
class Attempt:
    """Send this."""

    images: Sequence[Encoded]
    top_k: int | None
    remaining_s: float

    def request(self) -> dict[str, Any]:
        """As arguments of httpx's `post`."""
        parameters = {"timeout_ms": max(1, int(self.remaining_s * 1000)), "top_k": self.top_k}
        return {
            "url": "/classify",
            "params": {name: value for name, value in parameters.items() if value is not None},
            "files": [("image", (str(index), image.content)) for index, image in enumerate(self.images)],
            "timeout": self.remaining_s + GRACE_S,
        }


@dataclass(frozen=True)
class Pause:
    """Wait before the next step."""

    seconds: float


Step = Attempt | Pause
Outcome = httpx.Response | httpx.TransportError | None


def converse(
    images: Sequence[Encoded], top_k: int | None, timeout_s: float, clock: Callable[[], float] = time.monotonic
) -> Generator[Step, Outcome, list[Result]]:
    """-> the images' results, in order. Raises ClientError.

    An Attempt wants its response sent in, or httpx's error; a Pause wants None.
    """
    give_up_at = clock() + timeout_s
    results: dict[int, Result] = {}
    waiting = list(range(len(images)))
    pause_s = FIRST_PAUSE_S
    while True:
        asked = [images[i] for i in waiting]
        outcome = yield Attempt(asked, top_k, max(0.0, give_up_at - clock()))
        told, refusal = _told(outcome, asked)
        results.update(zip(waiting, told, strict=False))
        waiting = [i for i in waiting if i not in results or _may_pass(results[i])]
        wait_s = (_retry_after_s(outcome) or pause_s) * random.uniform(1, 1 + PAUSE_SPREAD)
        too_late = clock() + wait_s >= give_up_at
        if too_late and refusal is not None and len(waiting) == len(images):
            raise refusal
        if too_late or not waiting:
            return [results[i] for i in range(len(images))]
        yield Pause(wait_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _told(outcome: Outcome, images: Sequence[Encoded]) -> tuple[list[Result], ClientError | None]:
    """The results of all images or of none, and what went wrong. Raises a ClientError that will not pass."""
    if isinstance(outcome, LOST):
        return [], ConnectionFailed(f"the connection was lost: {outcome!r}")
    if not isinstance(outcome, httpx.Response):
        raise ConnectionFailed(f"there was no answer: {outcome!r}")
    try:
        if outcome.status_code == HTTPStatus.OK:
            answer = outcome.json()
            pairs = zip(images, answer["results"], strict=True)
            return [Result.of(image.name, entry, answer) for image, entry in pairs], None
        problem = ProblemError.of(outcome)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClientError(f"the answer from {outcome.url} is not this service's") from error
    faults = _faults(problem, images)
    if not faults and problem.status not in TRY_AGAIN_STATUSES:
        raise problem
    results = [Result(i.name, (), fault, problem.request_id) for i, fault in zip(images, faults, strict=False)]
    return results, problem


def _faults(problem: ProblemError, images: Sequence[Encoded]) -> Sequence[ImageFault]:
    """One for each image, if they are why there is no answer, or might get one later; none otherwise."""
    if len(images) == 1 and problem.code == "body_too_large":  # nor would it fit in another batch
        return [ImageFault(problem.code, problem.detail)]
    return problem.faults if {fault.code for fault in problem.faults} <= IMAGE_FAULTS | TRY_AGAIN_CODES else ()


def _may_pass(result: Result) -> bool:
    return result.error is not None and result.error.code in TRY_AGAIN_CODES


def _retry_after_s(outcome: Outcome) -> float | None:
    """The header's seconds; its other form, a date, is not this service's."""
    text = outcome.headers.get("Retry-After", "") if isinstance(outcome, httpx.Response) else ""
    return float(text) if text.isdecimal() else None
