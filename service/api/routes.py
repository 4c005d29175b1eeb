"""POST /classify, GET /models, POST /models/reload, GET /metrics.

1. the deadline counts from the arrival of the request, its upload included;
2. what would not be answered in time is refused before its body is read;
3. a client that leaves cancels its images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from prometheus_client.exposition import choose_encoder
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from models.manifest import Slug
from service.api.answers import answer, choice_of, classify_images, served_model
from service.api.lifecycle import Lifecycle
from service.api.openapi import CLASSIFY, METRICS, MODELS, RELOAD
from service.api.payloads import read_uploads
from service.api.problems import RequestError
from service.api.processes import Processes
from service.api.requests import Exchange, read_in_time
from service.api.schemas import ModelDescription, Speed
from service.classify.classifier import Classifier
from service.settings import Settings

DEFAULT_TOP_K = 5

_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")


class PlainRoute(APIRoute):
    """For an endpoint from Request to Response: documented by FastAPI, but called without its search for parameters."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


class Endpoints:
    def __init__(self, lifecycle: Lifecycle, settings: Settings, processes: Processes) -> None:
        self._lifecycle = lifecycle
        self._settings = settings
        self._processes = processes

    def add_to(self, router: APIRouter) -> None:
        plain: dict[str, Any] = {"methods": ["POST"], "route_class_override": PlainRoute}
        router.add_api_route("/classify", self.classify, **plain, **CLASSIFY)
        # As Amazon SageMaker calls it: "Custom inference code with hosting services" in its developer guide.
        router.add_api_route("/invocations", self.classify, **plain, include_in_schema=False)
        router.add_api_route("/models", self.models, methods=["GET"], **MODELS)
        router.add_api_route("/models/reload", self.reload, methods=["POST"], **RELOAD)
        router.add_api_route("/metrics", self.metrics, methods=["GET"], **METRICS)

    async def classify(self, request: Request) -> Response:
        """The best labels of one or more images."""
        exchange = Exchange.of(request)
        classifier = self._lifecycle.serving()
        top_k = read_top_k(request.query_params, len(classifier.bundle.labels))
        timeout_ms = read_timeout_ms(request.query_params, self._settings.timeout_ms)
        # Uvicorn drops what still comes of the body; the connection stays usable.
        classifier.admit(1, 0, exchange.arrived + timeout_ms / 1000)
        uploads = await read_in_time(exchange, read_uploads(request, self._settings), timeout_ms)
        images = [upload.content for upload in uploads]
        fates = await classify_images(request, classifier, images, top_k=top_k, timeout_s=timeout_ms / 1000)
        return answer(exchange, classifier, uploads, fates)

    async def models(self, request: Request) -> Response:
        """The served bundle, and how fast it was measured to be here."""
        return self._describe(self._lifecycle.serving())

    async def reload(self, request: Request) -> Response:
        """Open the newest bundle, or the one that is named, check it, and let it serve in the place of this one."""
        version = read_version(request.query_params)
        await self._processes.reload({} if version is None else {"model": self._lifecycle.version_beside(version)})
        return self._describe(self._lifecycle.serving())

    def _describe(self, classifier: Classifier) -> Response:
        description = ModelDescription(
            **served_model(classifier).model_dump(),
            labels=list(classifier.bundle.labels),
            manifest=classifier.bundle.manifest.model_dump(mode="json"),
            speed=Speed.of(classifier.batcher.speed.image_s),
            device=classifier.engine.device,
            pixels=self._settings.pixels,
            choice=choice_of(classifier.choice),
            workers=self._settings.workers,
        )
        return Response(description.model_dump_json(), media_type="application/json")

    async def metrics(self, request: Request) -> Response:
        """Prometheus text, or OpenMetrics for a scraper that accepts it."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(await self._processes.collector()), headers={"Content-Type": media_type})


def read_top_k(query: Mapping[str, str], classes: int) -> int:
    """Raises RequestError `invalid_parameter`."""
    text = query.get("top_k")
    if text is None:
        return min(DEFAULT_TOP_K, classes)
    if not _WHOLE_NUMBER.fullmatch(text) or not 1 <= int(text) <= classes:
        raise RequestError("invalid_parameter", f"top_k={text} is not a whole number in 1..{classes}")
    return int(text)


def read_version(query: Mapping[str, str]) -> str | None:
    """Raises RequestError `invalid_parameter`; what is a version may still not be there."""
    text = query.get("version")
    try:
        return None if text is None else TypeAdapter(Slug).validate_python(text)
    except ValidationError:
        raise RequestError("invalid_parameter", f"version={text} cannot be the version of a bundle") from None


def read_timeout_ms(query: Mapping[str, str], most_ms: int) -> int:
    """The client's deadline, but at most the server's. Raises RequestError `invalid_parameter`."""
    text = query.get("timeout_ms")
    if text is None:
        return most_ms
    if not _WHOLE_NUMBER.fullmatch(text) or int(text) < 1:
        raise RequestError(
            "invalid_parameter",
            f"timeout_ms={text} is not a whole number of milliseconds from 1 on (over {most_ms} counts as {most_ms})",
        )
    return min(int(text), most_ms)
