from __future__ import annotations

import json

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from models.errors import BundleError, ImageError
from service.api.problems import CLASSES, CODES, Fault, RequestError, fault_of, problem_response
from service.api.schemas import FailedImage
from service.errors import (
    DeadlineExceeded,
    Draining,
    EngineFailed,
    FeedbackGiven,
    FeedbackRejected,
    ModelRejected,
    NotReady,
    Overloaded,
    ReloadRunning,
    ServiceError,
    UnknownRequest,
)

# The table of the public interface, and what POST /models/reload and POST /feedback add to it.
STATUSES = {
    400: {"malformed_request"},
    401: {"unauthorized"},
    403: {"forbidden"},
    404: {"not_found", "unknown_request"},
    405: {"method_not_allowed"},
    408: {"request_timeout", "upload_timeout"},
    409: {"reload_running", "feedback_given"},
    413: {"body_too_large", "too_many_pixels", "too_many_images"},
    415: {"unsupported_media_type"},
    422: {"undecodable_image", "invalid_parameter", "model_rejected"},
    431: {"headers_too_large"},
    500: {"internal_error"},
    503: {"overloaded", "not_ready", "draining"},
    504: {"deadline_exceeded"},
}


def test_every_code_has_the_promised_status() -> None:
    assert {code: status for code, (status, _) in CODES.items()} == {
        code: status for status, codes in STATUSES.items() for code in codes
    }


def test_every_error_of_a_request_has_a_code() -> None:
    assert set(CLASSES.values()) <= set(CODES)
    assert set(CLASSES) == {
        Overloaded,
        NotReady,
        Draining,
        DeadlineExceeded,
        EngineFailed,
        ReloadRunning,
        ModelRejected,
        UnknownRequest,
        FeedbackRejected,
        FeedbackGiven,
    }


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (RequestError("body_too_large", "too large"), "body_too_large", "too large"),
        (ImageError("too_many_pixels", "60 megapixels"), "too_many_pixels", "60 megapixels"),
        (Overloaded("9 images are waiting", 2.0), "overloaded", "9 images are waiting"),
        (DeadlineExceeded("too late"), "deadline_exceeded", "too late"),
        (HTTPException(418, "a teapot"), "malformed_request", "a teapot"),
        (
            RequestValidationError([{"type": "missing", "loc": ("query", "a"), "msg": "Field required"}]),
            "invalid_parameter",
            "query.a: Field required",
        ),
    ],
)
def test_an_expected_error_tells_what_happened(error: Exception, code: str, detail: str) -> None:
    fault = fault_of(error)
    assert (fault.code, fault.detail) == (code, detail)


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("secret"),
        EngineFailed("secret"),
        ServiceError("secret"),
        BundleError("secret"),
        HTTPException(500, "secret"),
    ],
)
def test_a_bug_answers_500_and_shows_nothing_of_the_inside(error: Exception) -> None:
    fault = fault_of(error)
    assert fault.status == 500
    assert "secret" not in fault.detail


def test_the_document_has_the_members_of_rfc_9457_and_ours() -> None:
    failed = FailedImage(index=1, filename="a.jpg", code="overloaded", detail="full")
    fault = Fault("overloaded", "the queue is full", retry_after_s=0.2, index=1)
    response = problem_response(fault, instance="/classify", request_id="r1", errors=[failed])
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(response.body) == {
        "type": "urn:problem-type:repvgg:overloaded",
        "title": CODES["overloaded"][1],
        "status": 503,
        "detail": "the queue is full",
        "instance": "/classify",
        "code": "overloaded",
        "request_id": "r1",
        "index": 1,
        "errors": [{"index": 1, "filename": "a.jpg", "code": "overloaded", "detail": "full"}],
        "retry_after_ms": 200,
    }


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.001, "2"), (59.5, "60")])
def test_retry_after_is_in_whole_seconds_rounded_up(seconds: float, header: str) -> None:
    response = problem_response(Fault("draining", "bye", retry_after_s=seconds), instance="/", request_id="r")
    assert response.headers["retry-after"] == header


def test_what_says_no_more_than_its_status_has_no_type_of_its_own() -> None:
    response = problem_response(fault_of(HTTPException(404)), instance="/nope", request_id="r")
    document = json.loads(response.body)
    assert (document["type"], document["title"]) == ("about:blank", "Not Found")
    assert "retry-after" not in response.headers


def test_headers_of_an_error_reach_the_client() -> None:
    error = RequestError("unsupported_media_type", "no", headers={"Accept-Post": "image/*"})
    assert problem_response(fault_of(error), instance="/", request_id="r").headers["accept-post"] == "image/*"
