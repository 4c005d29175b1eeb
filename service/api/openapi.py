"""The parts of /openapi.json that FastAPI cannot derive: bodies, query, problem documents, and examples."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import PlainTextResponse

from service.api.problems import CODES, MEDIA_TYPE
from service.api.reading.payloads import READERS
from service.api.schemas import (
    BINARY,
    PIXEL_B64,
    REFERENCE,
    Answer,
    ClassifyRequest,
    Feedback,
    FeedbackAnswer,
    Health,
    InferAnswer,
    InferRequest,
    ModelDescription,
    ModelMetadata,
    ModelReady,
    Problem,
    ServerMetadata,
    V2Health,
    reference,
)

_REQUEST_ID = "5f0c1f2e9f0b4b6f8f6b0d3b2b1a4c7d"
_MODEL = {"name": "repvgg-small-tinyimagenet", "version": "1", "engine": "onnxruntime", "precision": "fp32"}

ANSWER_EXAMPLE = {
    "model": _MODEL,
    "results": [
        {"index": 0, "filename": "cat.jpg", "predictions": [{"label": "cat", "class_id": 3, "score": 0.97}]},
        {
            "index": 1,
            "filename": "notes.txt",
            "error": {"code": "undecodable_image", "detail": "not a readable image; formats: JPEG, PNG, ..."},
        },
    ],
    "request_id": _REQUEST_ID,
}


def _problem_example(code: str, detail: str) -> dict[str, Any]:
    status, title = CODES[code]
    return {
        "type": f"urn:problem-type:repvgg:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": "/classify",
        "code": code,
        "request_id": _REQUEST_ID,
    }


_EXAMPLES = {
    400: _problem_example("malformed_request", "the multipart body ends before its closing boundary"),
    401: _problem_example("unauthorized", "this key is not known"),
    403: _problem_example("forbidden", "a page of another origin must not reload the model"),
    404: _problem_example(
        "not_found", "model cats version 1 is not served here, but repvgg-small-tinyimagenet version 1 is"
    ),
    408: _problem_example("request_timeout", "the head of the request did not arrive within 10 s"),
    409: _problem_example("reload_running", "another reload is running; retry when it has finished"),
    413: _problem_example("too_many_pixels", "the image has 10000 x 6000 = 60000000 pixels, the limit is 50000000"),
    415: _problem_example(
        "unsupported_media_type", "the request has no Content-Type; accepted: image/*, application/octet-stream, ..."
    ),
    422: _problem_example("invalid_parameter", "top_k=0 is not a whole number in 1..10"),
    431: _problem_example("headers_too_large", "the request's line and headers are too long"),
    500: _problem_example("internal_error", "the server failed on this request; its log has the reason"),
    503: _problem_example("overloaded", "256 images are already waiting") | {"retry_after_ms": 1800},
    504: _problem_example("deadline_exceeded", "no answer before the deadline"),
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`."""
    return {status: _problem_response(status) for status in statuses}


def _problem_response(status: int) -> dict[str, Any]:
    codes = ", ".join(code for code, (code_status, _) in CODES.items() if code_status == status)
    schema = reference(Problem)
    response: dict[str, Any] = {
        "description": codes,
        "content": {MEDIA_TYPE: {"schema": schema, "example": _EXAMPLES[status]}},
    }
    if status == 503:
        response["headers"] = {"Retry-After": {"description": "whole seconds", "schema": {"type": "integer"}}}
    return response


def _parameter(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": schema or {"type": "integer", "minimum": 1},
    }


# In the order in which they are shown.
TAGS = [{"name": name} for name in ("classify", "open inference protocol", "health")]
# Arguments of the routes, beside path and method.
CLASSIFY: dict[str, Any] = {
    "tags": ["classify"],
    "operation_id": "classify",
    "response_model": Answer,
    "response_description": "At least one image has an answer; each has its predictions or its own error",
    "responses": {
        200: {"content": {"application/json": {"example": ANSWER_EXAMPLE}}},
        **problem_responses(400, 401, 408, 413, 415, 422, 431, 500, 503, 504),
    },
    "openapi_extra": {
        "parameters": [
            _parameter("top_k", "labels per image; 1..number of classes, 5 by default"),
            _parameter(
                "timeout_ms",
                "deadline of the whole request, upload included; milliseconds",
            ),
            _parameter(
                "explain",
                "`cam`: for each prediction, a grid with the contribution of each part of the image to its logit",
                type="string",
                enum=["cam"],
            ),
            _parameter(
                "embedding",
                "the pooled features of each image, as base64 (`true`, `b64`) or as a `list` of numbers",
                type="string",
                enum=["true", "false", "b64", "list"],
            ),
            _parameter("normalize", "embeddings of length 1", type="boolean"),
            _parameter(
                "labels",
                "restrict the answer to these labels, separated by commas; their scores add up to 1",
                type="string",
            ),
            _parameter("min_score", "leave out labels with a lower score", type="number", minimum=0, maximum=1),
            _parameter(
                "coverage",
                "adds the smallest set of labels that contains the true one with this probability; the bundle needs "
                "quantiles for it (`repvgg evaluate --fit-confidence`)",
                type="number",
                minimum=0,
                maximum=1,
            ),
        ],
        "requestBody": {
            "required": True,
            "description": "One image raw, or several as form files or base64. JPEG, PNG, WebP, GIF, BMP, TIFF.",
            "content": {media_type: reader.described() for media_type, reader in READERS.items()},
        },
    },
}
MODELS: dict[str, Any] = {
    "tags": ["classify"],
    "operation_id": "models",
    "response_model": ModelDescription,
    "responses": problem_responses(401, 503),
}
RELOAD: dict[str, Any] = {
    "tags": ["classify"],
    "operation_id": "reload",
    "response_model": ModelDescription,
    "response_description": "This bundle serves now; requests that began earlier finish on the previous one",
    "responses": problem_responses(401, 403, 409, 422, 500, 503),
    "openapi_extra": {
        "parameters": [
            _parameter(
                "version",
                "another version of the serving bundle; when not given, what the setting `model` names",
                type="string",
            )
        ],
    },
}
FEEDBACK: dict[str, Any] = {
    "tags": ["classify"],
    "operation_id": "feedback",
    "response_model": FeedbackAnswer,
    "response_description": "The answer is judged, and counted in the metrics unless it was counted before",
    "responses": problem_responses(400, 401, 403, 404, 408, 409, 413, 422, 500, 503),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": reference(Feedback),
                    "example": {"request_id": _REQUEST_ID, "index": 0, "label": "cat"},
                }
            },
        }
    },
}
HEALTH: dict[str, Any] = {"tags": ["health"], "response_model": Health, "responses": problem_responses(500, 503)}
V2_HEALTH: dict[str, Any] = {"tags": ["health"], "response_model": V2Health, "responses": problem_responses(500, 503)}
METRICS: dict[str, Any] = {
    "tags": ["health"],
    "operation_id": "metrics",
    "response_class": PlainTextResponse,
    "response_description": "Prometheus text format, or OpenMetrics if the Accept header asks for it",
}
_PROTOCOL = {"tags": ["open inference protocol"]}
SERVER_METADATA: dict[str, Any] = {
    **_PROTOCOL,
    "response_model": ServerMetadata,
    "operation_id": "server_metadata",
    "responses": problem_responses(401),
}
MODEL_METADATA: dict[str, Any] = {
    **_PROTOCOL,
    "response_model": ModelMetadata,
    "responses": problem_responses(401, 404, 503),
}
MODEL_CONFIG: dict[str, Any] = {**_PROTOCOL, "responses": problem_responses(401, 404, 503)}
MODEL_READY: dict[str, Any] = {**_PROTOCOL, "response_model": ModelReady, "responses": problem_responses(404, 503)}
INFER: dict[str, Any] = {
    **_PROTOCOL,
    "response_model": InferAnswer,
    "responses": problem_responses(400, 401, 404, 408, 413, 415, 422, 431, 500, 503, 504),
}
INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "JSON; or JSON of `Inference-Header-Content-Length` bytes followed by the input's bytes.",
        "content": {
            "application/json": {
                "schema": reference(InferRequest),
                "example": {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [PIXEL_B64]}]},
            },
            "application/octet-stream": {"schema": BINARY},
        },
    }
}


def operation_id(path: str) -> str:
    """`v2_models_name_infer`"""
    return "_".join(re.findall(r"\w+", path))


def path_parameters(path: str) -> list[dict[str, Any]]:
    """For a route whose handler reads them itself."""
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]


def describe(app: FastAPI) -> dict[str, Any]:
    """The document, with the schemas that no route's signature names. Cached on the app, like FastAPI's own."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=TAGS
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (ClassifyRequest, Feedback, InferRequest, Problem):
            schema = model.model_json_schema(ref_template=REFERENCE)
            schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
        app.openapi_schema = document
    return app.openapi_schema
