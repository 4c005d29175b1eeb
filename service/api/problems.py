"""Every error as an RFC 9457 problem document: one table of codes, one of error classes.

1. every error is `application/problem+json` with a stable `code` and the request's id;
2. a bug is answered 500 and reveals no internals;
3. errors worth retrying carry `Retry-After` in whole seconds, rounded up;
4. under /v2 the body also has `error`, as the Open Inference Protocol requires.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from models.errors import ImageError
from service.api.schemas import FailedImage, Problem
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

MEDIA_TYPE = "application/problem+json"

# code -> (status, title)
CODES: dict[str, tuple[int, str]] = {
    "malformed_request": (400, "The request cannot be read"),
    "unauthorized": (401, "An API key is needed"),
    "forbidden": (403, "This caller is not allowed to do this"),
    "not_found": (404, "Not Found"),
    "unknown_request": (404, "No such answer is remembered"),
    "method_not_allowed": (405, "Method Not Allowed"),
    "request_timeout": (408, "The request did not arrive in time"),
    "upload_timeout": (408, "The body did not arrive in time"),
    "reload_running": (409, "A reload is already running"),
    "feedback_given": (409, "This image already has another label"),
    "body_too_large": (413, "The body is too large"),
    "too_many_pixels": (413, "The image has too many pixels"),
    "too_many_images": (413, "The request has too many images"),
    "unsupported_media_type": (415, "This kind of body is not accepted"),
    "undecodable_image": (422, "The image cannot be decoded"),
    "invalid_parameter": (422, "A parameter is not valid"),
    "model_rejected": (422, "The model cannot serve"),
    "headers_too_large": (431, "The request's head is too large"),
    "internal_error": (500, "The server failed"),
    "overloaded": (503, "The server is overloaded"),
    "not_ready": (503, "The server is not ready yet"),
    "draining": (503, "The server is shutting down"),
    "deadline_exceeded": (504, "The deadline has passed"),
}

# error class -> code; any other exception is a bug
CLASSES: dict[type[ServiceError], str] = {
    Overloaded: "overloaded",
    NotReady: "not_ready",
    Draining: "draining",
    DeadlineExceeded: "deadline_exceeded",
    EngineFailed: "internal_error",
    ReloadRunning: "reload_running",
    ModelRejected: "model_rejected",
    UnknownRequest: "unknown_request",
    FeedbackRejected: "invalid_parameter",
    FeedbackGiven: "feedback_given",
}

INTERNAL = "the server failed on this request; its log has the reason, under the same request_id"


class RequestError(Exception):
    """The request as a whole is invalid. `code` is a key of CODES; the text is shown to the client."""

    def __init__(
        self, code: str, detail: str, *, index: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.index = index
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Fault:
    """What a client is told about an error."""

    code: str
    detail: str
    retry_after_s: float | None = None
    index: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return CODES[self.code][0]


def fault_of(error: BaseException) -> Fault:
    """Any error -> what the client is told; unexpected ones reveal nothing."""
    if isinstance(error, RequestError):
        return Fault(error.code, str(error), index=error.index, headers=error.headers)
    if isinstance(error, ImageError):
        return Fault(error.code, error.detail)
    if isinstance(error, RequestValidationError):
        return Fault("invalid_parameter", _first_invalid(error))
    if isinstance(error, HTTPException):
        return _fault_of_framework(error)
    code = next((CLASSES[kind] for kind in type(error).__mro__ if kind in CLASSES), "internal_error")
    if code == "internal_error":
        return Fault(code, INTERNAL)
    return Fault(code, str(error), retry_after_s=getattr(error, "retry_after_s", None))


def _fault_of_framework(error: HTTPException) -> Fault:
    """404, 405, and whatever else the web framework rejects on its own."""
    headers = error.headers or {}
    if error.status_code == HTTPStatus.NOT_FOUND:
        return Fault(
            "not_found",
            "there is nothing at this path: send images to /classify; /docs lists the other paths",
            headers=headers,
        )
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = headers.get("Allow", "").replace("GET", "GET, HEAD")  # RequestMiddleware answers HEAD like GET
        return Fault("method_not_allowed", f"this path takes {allowed}", headers={**headers, "Allow": allowed})
    if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Fault("malformed_request", str(error.detail), headers=headers)
    return Fault("internal_error", INTERNAL)


def _first_invalid(error: RequestValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def problem_response(
    fault: Fault,
    *,
    instance: str,
    request_id: str,
    errors: Sequence[FailedImage] | None = None,
    checks: dict[str, str] | None = None,
) -> Response:
    status, title = CODES[fault.code]
    has_own_type = fault.code not in ("not_found", "method_not_allowed")
    problem = Problem(
        type=f"urn:problem-type:repvgg:{fault.code}" if has_own_type else "about:blank",
        title=title,
        status=status,
        detail=fault.detail,
        instance=instance,
        code=fault.code,
        request_id=request_id,
        index=fault.index,
        errors=list(errors) if errors else None,
        retry_after_ms=None if fault.retry_after_s is None else math.ceil(fault.retry_after_s * 1000),
        checks=checks,
        error=fault.detail if f"{instance}/".startswith("/v2/") else None,
    )
    return Response(
        problem.model_dump_json(exclude_none=True), status, {**fault.headers, **_retry_after(fault)}, MEDIA_TYPE
    )


def _retry_after(fault: Fault) -> dict[str, str]:
    """The header has no fractions, and 0 would make clients retry immediately."""
    return {} if fault.retry_after_s is None else {"Retry-After": str(max(1, math.ceil(fault.retry_after_s)))}
