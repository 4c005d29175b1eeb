from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from repvgg_client.conversation import Asked, Attempt, Pause, converse
from repvgg_client.errors import ClientError, ConnectionFailed, ProblemError
from repvgg_client.images import Encoded
from repvgg_client.results import Model, Result

IMAGES = [Encoded(name, name.encode()) for name in ("a", "b", "c")]
CAT = {"predictions": [{"label": "cat", "class_id": 3, "score": 0.75}]}
MODEL = {"name": "pets", "version": "2", "engine": "onnxruntime", "precision": "fp32"}
LOST = httpx.ConnectError("refused")


def fault(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "detail": f"it is {code}"}}


def answer(*entries: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json={"model": MODEL, "results": list(entries), "request_id": "r1"}, request=REQUEST)


def problem(status: int, code: str, *faults: str, retry_after: str | None = None) -> httpx.Response:
    body: dict[str, Any] = {"status": status, "code": code, "detail": "no"}
    if faults:
        body["errors"] = [{"index": i, "code": each, "detail": f"it is {each}"} for i, each in enumerate(faults)]
    headers = {"Content-Type": "application/problem+json", "X-Request-ID": "r2"}
    headers |= {"Retry-After": retry_after} if retry_after else {}
    return httpx.Response(status, content=json.dumps(body), headers=headers, request=REQUEST)


REQUEST = httpx.Request("POST", "http://server/classify")


class Talk:
    """A conversation with these replies; its clock advances only in the pauses."""

    def __init__(self, *replies: httpx.Response | httpx.TransportError, timeout_s: float = 10.0) -> None:
        self.attempts: list[Attempt] = []
        self.pauses: list[float] = []
        self._replies: Iterator[Any] = iter(replies)
        self._timeout_s = timeout_s

    def results(self) -> list[Result]:
        talk = converse(IMAGES, Asked(1), self._timeout_s, clock=lambda: sum(self.pauses))
        reply = None
        while True:
            try:
                step = talk.send(reply)
            except StopIteration as end:
                return list(end.value)
            if isinstance(step, Pause):
                self.pauses.append(step.seconds)
                reply = None
            else:
                self.attempts.append(step)
                reply = next(self._replies)

    def outcomes(self) -> list[str]:
        return [r.error.code if r.error else r.predictions[0].label for r in self.results()]

    def sent(self) -> list[str]:
        return ["".join(str(image.name) for image in attempt.images) for attempt in self.attempts]


def test_an_answer_becomes_results_in_order() -> None:
    results = Talk(answer(CAT, fault("undecodable_image"), CAT)).results()
    assert [(r.name, r.request_id) for r in results] == [("a", "r1"), ("b", "r1"), ("c", "r1")]
    assert {r.model for r in results} == {Model("pets", "2", "onnxruntime", "fp32")}
    assert results[0].predictions[0].score == 0.75
    assert (results[1].predictions, results[1].error) == ((), results[1].error)
    assert results[1].error is not None
    assert results[1].error.detail == "it is undecodable_image"


def test_each_request_carries_the_time_that_is_left_but_for_the_way_back() -> None:
    talk = Talk(problem(503, "overloaded", retry_after="4"), answer(CAT, CAT, CAT))
    assert talk.outcomes() == ["cat"] * 3
    first, second = (attempt.request()["params"] for attempt in talk.attempts)
    assert first == {"timeout_ms": 9500, "top_k": 1}
    assert second["timeout_ms"] == int((9.5 - talk.pauses[0]) * 1000)
    assert Attempt(IMAGES, Asked(1), 0.1).request()["params"]["timeout_ms"] == 90


def test_a_retry_waits_for_retry_after_and_a_little_longer() -> None:
    talk = Talk(problem(429, "quota_exceeded", retry_after="4"), answer(CAT, CAT, CAT))
    talk.results()
    assert 4 <= talk.pauses[0] <= 5


@pytest.mark.parametrize("temporary", [LOST, httpx.ReadError(""), httpx.RemoteProtocolError(""), problem(503, "x")])
def test_temporary_failures_are_retried_with_growing_pauses_until_the_timeout(temporary: Any) -> None:
    talk = Talk(*[temporary] * 100)
    with pytest.raises(ClientError) as caught:
        talk.results()
    assert isinstance(caught.value, ProblemError if isinstance(temporary, httpx.Response) else ConnectionFailed)
    assert 4 <= len(talk.pauses) <= 12
    assert talk.pauses[0] < talk.pauses[2] < talk.pauses[-1]
    assert sum(talk.pauses) < 10


def test_a_pause_beyond_the_timeout_is_not_started() -> None:
    talk = Talk(problem(503, "overloaded", retry_after="11"))
    with pytest.raises(ProblemError, match=r"503 overloaded: no \(request r2\)"):
        talk.results()
    assert talk.pauses == []


@pytest.mark.parametrize(
    "final",
    [
        problem(400, "malformed_request"),
        problem(401, "unauthorized"),
        problem(422, "invalid_parameter"),
        problem(500, "internal_error", *["internal_error"] * 3),
        problem(504, "deadline_exceeded", *["deadline_exceeded"] * 3),
        httpx.Response(502, text="<html>bad gateway", request=REQUEST),
        httpx.ReadTimeout(""),
        httpx.UnsupportedProtocol(""),
    ],
)
def test_any_other_failure_is_raised_immediately(final: Any) -> None:
    talk = Talk(final)
    with pytest.raises(ClientError):
        talk.results()
    assert talk.pauses == []


def test_images_that_have_an_answer_are_not_sent_again() -> None:
    talk = Talk(
        answer(CAT, fault("overloaded"), fault("overloaded")),
        problem(503, "overloaded", "overloaded", "undecodable_image", retry_after="1"),
        LOST,
        answer(CAT),
    )
    assert talk.outcomes() == ["cat", "cat", "undecodable_image"]
    assert talk.sent() == ["abc", "bc", "b", "b"]


def test_answers_are_kept_at_the_timeout() -> None:
    talk = Talk(answer(CAT, fault("overloaded"), CAT), *[problem(503, "draining", retry_after="4")] * 9)
    assert talk.outcomes() == ["cat", "overloaded", "cat"]


def test_an_image_that_cannot_be_decoded_is_a_result_however_the_images_are_batched() -> None:
    nothing = problem(422, "undecodable_image", "undecodable_image", "too_many_pixels", "undecodable_image")
    assert Talk(nothing).outcomes() == ["undecodable_image", "too_many_pixels", "undecodable_image"]


def test_a_single_image_that_is_too_large_is_also_a_result() -> None:
    talk = converse(IMAGES[:1], Asked(), 1.0)
    next(talk)
    with pytest.raises(StopIteration) as caught:
        talk.send(problem(413, "body_too_large"))
    assert caught.value.value[0].error.code == "body_too_large"
    with pytest.raises(ProblemError, match="413 body_too_large"):
        Talk(problem(413, "body_too_large")).results()


@pytest.mark.parametrize(
    "strange",
    [
        httpx.Response(200, text="hello", request=REQUEST),
        httpx.Response(200, json=[1], request=REQUEST),
        answer(CAT),
        answer(CAT, CAT, {"predictions": [{"name": "cat"}]}),
        httpx.Response(404, json={}, headers={"Content-Type": "application/problem+json"}, request=REQUEST),
    ],
)
def test_an_answer_from_another_server_is_an_error(strange: httpx.Response) -> None:
    with pytest.raises(ClientError, match="the answer from http://server/classify is not from a repvgg server"):
        Talk(strange).results()


def test_a_response_that_is_not_a_problem_document_keeps_its_status_and_text() -> None:
    with pytest.raises(ProblemError) as caught:
        Talk(httpx.Response(502, text="<html>bad gateway", request=REQUEST)).results()
    error = caught.value
    assert (error.status, error.code, error.detail, error.request_id) == (502, "http_502", "<html>bad gateway", None)


def test_a_coverage_is_asked_for_and_its_set_read() -> None:
    talk = converse(IMAGES[:1], Asked(coverage=0.95), 10.0)
    step = next(talk)
    assert isinstance(step, Attempt)
    assert step.request()["params"]["coverage"] == 0.95
    entry = {**CAT, "confident": False, "set": {"coverage": 0.95, "labels": ["cat", "dog"]}}
    with pytest.raises(StopIteration) as ended:
        talk.send(answer(entry))
    (result,) = ended.value.value
    assert (result.confident, result.label_set) == (False, ("cat", "dog"))


def test_a_server_without_confidence_leaves_it_open() -> None:
    (first, *_) = Talk(answer(CAT, CAT, CAT)).results()
    assert (first.confident, first.label_set) == (None, None)
