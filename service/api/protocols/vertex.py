"""Google Vertex AI's routes: health, and prediction: `{"instances": [{"b64": "..."}]}` -> `{"predictions": [...]}`.

1. each instance has its own prediction, in order: an item of the `results` of /classify;
2. the routes exist only if the platform names them, and then win over ours with the same paths.

Source: "Custom container requirements" in its documentation.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import Response

from service.api.answers import answer_as, classify_images
from service.api.health import Probes
from service.api.lifecycle import Lifecycle
from service.api.problems import RequestError
from service.api.reading.asked import as_list, read_asked_in_json
from service.api.reading.parameters import as_texts, check_names, read_timeout_s, read_top_k, refuse_query
from service.api.reading.payloads import Upload, decode_images, explain, read_body, refuse_countless
from service.api.reading.transfer import json_as_utf8, without_line_breaks
from service.api.requests import Exchange
from service.api.routes import CLASSIFY_PARAMETERS
from service.api.schemas import VertexAnswer, VertexRequest
from service.machine.aside import aside_if_large
from service.settings import Settings

PARAMETERS = (*CLASSIFY_PARAMETERS, "priors")
_FORM = '{"instances": [{"b64": "..."}]}'


class Vertex:
    def __init__(self, lifecycle: Lifecycle, settings: Settings, probes: Probes) -> None:
        self._lifecycle = lifecycle
        self._probes = probes
        self._settings = settings

    def add_to(self, router: APIRouter) -> None:
        if route := self._settings.vertex_health_route:
            self._probes.add_ready_to(router, route)
        if route := self._settings.vertex_predict_route:
            router.add_api_route(route, self.predict, methods=["POST"], include_in_schema=False)

    async def predict(self, request: Request) -> Response:
        exchange = Exchange.of(request)
        exchange.expect_answer_within(self._settings.timeout_ms / 1000)
        classifier = self._lifecycle.serving()
        classifier.admit(self._lifecycle.uploads.earliest_deadline(exchange))
        refuse_query(request, PARAMETERS)
        asked, uploads = await self._lifecycle.uploads.read(request, self._read)
        classifier = self._lifecycle.still_open(classifier)
        parameters = as_texts(asked.parameters)
        check_names(parameters, PARAMETERS)
        top_k = read_top_k(parameters, len(classifier.bundle.labels))
        timeout_s = read_timeout_s(parameters, self._settings.timeout_ms)
        exchange.expect_answer_within(timeout_s)
        deadline = self._lifecycle.uploads.deadline(exchange, timeout_s)
        images = [upload.content for upload in uploads]
        more = read_asked_in_json(asked.parameters, classifier)
        outcomes = await classify_images(request, classifier, images, top_k=top_k, deadline=deadline, asked=more)
        frame = VertexAnswer(predictions=[])
        return await answer_as(exchange, classifier, uploads, outcomes, frame, as_list=as_list(parameters))

    async def _read(self, request: Request) -> tuple[VertexRequest, list[Upload]]:
        content = await read_body(request, self._settings.max_body_bytes)
        return await aside_if_large(len(content), partial(_parse, content, self._settings.max_images_per_request))


def _parse(content: bytes, max_images: int) -> tuple[VertexRequest, list[Upload]]:
    content = json_as_utf8(content)
    refuse_countless(content, max_images)
    try:
        asked = VertexRequest.model_validate_json(without_line_breaks(content))
    except ValidationError as error:
        raise RequestError("malformed_request", explain(error, _FORM)) from error
    return asked, decode_images(asked.instances, "instances", max_images)
