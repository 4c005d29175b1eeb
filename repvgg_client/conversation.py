"""The retry logic for one batch, without any input or output: a generator that yields steps and receives their replies.

1. only temporary failures are retried: 503, 429 and a lost connection (classifying twice does no harm), and only until
   the timeout;
2. a retry waits for `Retry-After` and a random extra time, so that clients rejected together do not return together;
3. images that already have an answer are not sent again;
4. each request carries the time that is left, so that the server does not work on abandoned requests;
5. an image that cannot be decoded is a result, however the images are batched; any other failure is raised.

The design follows httpx's authentication flows: the two clients differ only in how they send and sleep.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx

from repvgg_client.errors import ClientError, ConnectionFailed, ProblemError
from repvgg_client.images import Encoded
from repvgg_client.results import ImageFault, Judgement, Result

# The server is told a deadline that is earlier than ours, by as much: its own 504 says more than a timeout on our side.
EARLIER_S = 0.5
EARLIER_SHARE = 0.1
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
PAUSE_SPREAD = 0.25
RETRY_STATUSES = (429, 503)
RETRY_CODES = frozenset({"overloaded", "not_ready", "draining"})
IMAGE_FAULTS = frozenset({"undecodable_image", "too_many_pixels"})
CONNECTION_LOST = (httpx.NetworkError, httpx.RemoteProtocolError)


@dataclass(frozen=True)
class Asked:
    """What is requested for each image. The server's defaults apply to values that are None or False."""

    top_k: int | None = None
    explain: bool = False
    embedding: bool = False
    normalize: bool = False
    labels: Sequence[str] | None = None
    priors: Mapping[str, float] | None = None
    coverage: float | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """Of the query."""
        given = {
            "top_k": self.top_k,
            "explain": "cam" if self.explain else None,
            "embedding": "true" if self.embedding else None,
            "normalize": "true" if self.normalize else None,
            "labels": None if self.labels is None else ",".join(self.labels),
            "coverage": self.coverage,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Attempt:
    """Send these images; its reply must be there, to the last byte, within `remaining_s`."""

    images: Sequence[Encoded]
    asked: Asked
    remaining_s: float

    def request(self) -> dict[str, Any]:
        """The arguments for httpx's `post`."""
        earlier_s = min(EARLIER_S, EARLIER_SHARE * self.remaining_s)
        timeout_ms = max(1, int((self.remaining_s - earlier_s) * 1000))
        return {
            "url": "/classify",
            "params": {"timeout_ms": timeout_ms, **self.asked.parameters},
            **self._body(),
            "timeout": self.remaining_s,
        }

    def _body(self) -> dict[str, Any]:
        if self.asked.priors is None:
            return {"files": [("image", (str(index), image.content)) for index, image in enumerate(self.images)]}
        images = [{"b64": base64.b64encode(image.content).decode()} for image in self.images]
        return {"json": {"images": images, "priors": dict(self.asked.priors)}}


@dataclass(frozen=True)
class Pause:
    """Wait before the next step."""

    seconds: float


Step = Attempt | Pause
Reply = httpx.Response | httpx.TransportError | None


def converse(
    images: Sequence[Encoded], asked: Asked, timeout_s: float, clock: Callable[[], float] = time.monotonic
) -> Generator[Step, Reply, list[Result]]:
    """Yields the steps of one request and returns the results of its images, in order. Raises ClientError.

    The caller performs each step and sends back its reply: the response to an Attempt or httpx's error, None for a
    Pause.
    """
    deadline = clock() + timeout_s
    results: dict[int, Result] = {}
    waiting = list(range(len(images)))
    pause_s = FIRST_PAUSE_S
    while True:
        sent = [images[i] for i in waiting]
        reply = yield Attempt(sent, asked, max(0.0, deadline - clock()))
        received, failure = _read_reply(reply, sent)
        results.update(zip(waiting, received, strict=False))
        waiting = [i for i in waiting if i not in results or _is_temporary(results[i])]
        wait_s = (_retry_after_s(reply) or pause_s) * random.uniform(1, 1 + PAUSE_SPREAD)
        too_late = clock() + wait_s >= deadline
        if too_late and failure is not None and len(waiting) == len(images):
            raise failure
        if too_late or not waiting:
            return [results[i] for i in range(len(images))]
        yield Pause(wait_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def read_judgement(reply: Reply) -> Judgement:
    """Of POST /feedback. Raises ClientError."""
    if not isinstance(reply, httpx.Response):
        raise ConnectionFailed(f"the server did not answer: {reply!r}")
    try:
        if reply.status_code == HTTPStatus.OK:
            return Judgement(**reply.json())
        problem = ProblemError.of(reply)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClientError(f"the answer from {reply.url} is not from a repvgg server") from error
    raise problem


def _read_reply(reply: Reply, images: Sequence[Encoded]) -> tuple[list[Result], ClientError | None]:
    """The results of all images or of none, and a temporary failure if there was one. Raises any other ClientError."""
    if isinstance(reply, CONNECTION_LOST):
        return [], ConnectionFailed(f"the connection was lost: {reply!r}")
    if not isinstance(reply, httpx.Response):
        raise ConnectionFailed(f"the server did not answer: {reply!r}")
    try:
        if reply.status_code == HTTPStatus.OK:
            answer = reply.json()
            pairs = zip(images, answer["results"], strict=True)
            return [Result.of(image.name, entry, answer) for image, entry in pairs], None
        problem = ProblemError.of(reply)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClientError(f"the answer from {reply.url} is not from a repvgg server") from error
    faults = _faults(problem, images)
    if not faults and problem.status not in RETRY_STATUSES:
        raise problem
    results = [Result(i.name, (), fault, problem.request_id) for i, fault in zip(images, faults, strict=False)]
    return results, problem


def _faults(problem: ProblemError, images: Sequence[Encoded]) -> Sequence[ImageFault]:
    """One fault per image, if each image failed by itself or may be retried; otherwise none."""
    if len(images) == 1 and problem.code == "body_too_large":  # a smaller batch is not possible
        return [ImageFault(problem.code, problem.detail)]
    return problem.faults if {fault.code for fault in problem.faults} <= IMAGE_FAULTS | RETRY_CODES else ()


def _is_temporary(result: Result) -> bool:
    return result.error is not None and result.error.code in RETRY_CODES


def _retry_after_s(reply: Reply) -> float | None:
    """The header in seconds; the server never sends its other form, a date."""
    text = reply.headers.get("Retry-After", "") if isinstance(reply, httpx.Response) else ""
    return float(text) if text.isdecimal() else None
