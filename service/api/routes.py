"""POST /classify, GET /models, POST /models/reload, POST /feedback, GET /metrics.

1. the client's deadline counts from the arrival of the request, the server's from the last byte of its body;
2. a request that cannot be answered in time is rejected before its body is read;
3. a client that disconnects cancels its images.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.access.callers import check_feedback, check_reload
from service.api.answers import answer, choice_of, classify_images, served_model
from service.api.lifecycle import Lifecycle
from service.api.openapi import CLASSIFY, FEEDBACK, METRICS, MODELS, RELOAD
from service.api.problems import RequestError
from service.api.processes import Processes
from service.api.reading.asked import PARAMETERS as ASKED
from service.api.reading.asked import as_list, read_asked
from service.api.reading.parameters import read_query, read_timeout_s, read_top_k, read_version
from service.api.reading.payloads import Upload, read_feedback, read_uploads
from service.api.requests import Exchange
from service.api.schemas import FeedbackAnswer, Limits, ModelDescription, Speed
from service.classify.classifier import Classifier
from service.observe.scrapes import Scrapes
from service.settings import Settings

# Parameters in the query of /classify.
CLASSIFY_PARAMETERS = ("top_k", "timeout_ms", *ASKED)


class PlainRoute(APIRoute):
    """For an endpoint from Request to Response: FastAPI documents it, but does not look for parameters."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


class DirectMiddleware:
    """Calls plain routes of a fixed path without the framework's search and its layers, which take a tenth of the event
    loop's time for a request. It must be the innermost layer, created once all routes exist."""

    def __init__(self, app: ASGIApp, router: APIRouter) -> None:
        self._app = app
        first: dict[tuple[str, str], BaseRoute] = {}
        for route in router.routes:
            for method in getattr(route, "methods", None) or ():
                first.setdefault((method, getattr(route, "path", "")), route)
        self._plain = {key: route for key, route in first.items() if isinstance(route, PlainRoute)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._plain.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            return await self._app(scope, receive, send)
        scope["route"] = route
        response = await route.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


class Endpoints:
    def __init__(self, lifecycle: Lifecycle, settings: Settings, processes: Processes) -> None:
        self._lifecycle = lifecycle
        self._settings = settings
        self._processes = processes
        self._scrapes = Scrapes(processes.collector)

    def add_to(self, router: APIRouter) -> None:
        plain: dict[str, Any] = {"methods": ["POST"], "route_class_override": PlainRoute}
        router.add_api_route("/classify", self.classify, **plain, **CLASSIFY)
        # As Amazon SageMaker calls it: "Custom inference code with hosting services" in its developer guide.
        router.add_api_route("/invocations", self.classify, **plain, include_in_schema=False)
        router.add_api_route("/models", self.models, methods=["GET"], **MODELS)
        router.add_api_route("/models/reload", self.reload, methods=["POST"], **RELOAD)
        router.add_api_route("/feedback", self.feedback, methods=["POST"], **FEEDBACK)
        router.add_api_route("/metrics", self.metrics, methods=["GET"], **METRICS)

    async def classify(self, request: Request) -> Response:
        """The best labels of one or more images."""
        exchange = Exchange.of(request)
        exchange.expect_answer_within(self._settings.timeout_ms / 1000)
        classifier = self._lifecycle.serving()
        parameters = read_query(request, CLASSIFY_PARAMETERS)
        read_top_k(parameters, len(classifier.bundle.labels))
        read_asked(parameters, classifier)
        timeout_s = read_timeout_s(parameters, self._settings.timeout_ms)
        exchange.expect_answer_within(timeout_s)
        # After a rejection the rest of the body is discarded, and the connection stays usable.
        classifier.admit(self._lifecycle.uploads.earliest_deadline(exchange, timeout_s))
        uploads, priors = await self._lifecycle.uploads.read(request, self._read, timeout_s)
        classifier = self._lifecycle.still_open(classifier)
        outcomes = await classify_images(
            request,
            classifier,
            [upload.content for upload in uploads],
            top_k=read_top_k(parameters, len(classifier.bundle.labels)),
            deadline=self._lifecycle.uploads.deadline(exchange, timeout_s),
            asked=read_asked(parameters, classifier, priors),
        )
        return await answer(exchange, classifier, uploads, outcomes, as_list=as_list(parameters))

    async def _read(self, request: Request) -> tuple[list[Upload], Mapping[str, float] | None]:
        return await read_uploads(request, self._settings)

    async def models(self, request: Request) -> Response:
        """The served bundle and its measured speed."""
        return self._describe(self._lifecycle.serving())

    async def reload(self, request: Request) -> Response:
        """Open the newest version of the bundle, or the given one, check it, and let it replace the serving one."""
        check_reload(request, has_keys=bool(self._settings.api_keys))
        version = read_version(read_query(request, ("version",)))
        await self._processes.reload({} if version is None else {"model": self._lifecycle.version_beside(version)})
        return self._describe(self._lifecycle.serving())

    async def feedback(self, request: Request) -> Response:
        """Report the true label of an image that this service has classified, for the metrics."""
        if not self._settings.feedback:
            raise RequestError("not_found", "feedback is off; `repvgg serve --feedback N` turns it on, for N images")
        check_feedback(request, has_keys=bool(self._settings.api_keys))
        given = await self._lifecycle.uploads.read(request, read_feedback)
        judgement = await self._processes.judge(given.request_id, given.index, given.label)
        answer = FeedbackAnswer(**asdict(judgement))
        return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")

    def _describe(self, classifier: Classifier) -> Response:
        description = ModelDescription(
            **served_model(classifier).model_dump(),
            labels=list(classifier.bundle.labels),
            manifest=classifier.bundle.manifest.model_dump(mode="json"),
            speed=Speed.of(classifier.batcher.speed.image_s),
            device=classifier.engine.device,
            pixels=self._settings.pixels,
            explanations=classifier.head is not None,
            choice=choice_of(classifier.choice),
            workers=self._settings.workers,
            limits=Limits.of(self._settings),
            feedback=bool(self._settings.feedback),
            keeps_images=self._settings.keep_if if self._settings.keep else None,
        )
        return Response(description.model_dump_json(), media_type="application/json")

    async def metrics(self, request: Request) -> Response:
        """Prometheus text, or OpenMetrics for a scraper that accepts it."""
        scrape = await self._scrapes.get(request.headers.get("accept", ""))
        return Response(scrape.text, headers={"Content-Type": scrape.media_type})
