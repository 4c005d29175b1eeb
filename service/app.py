"""The web application, wired; nothing else happens here.

The order of the layers: LifecycleMiddleware (draining, reloads) > RequestMiddleware (id, timings, log, metrics,
errors) > KeyMiddleware > routes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException

from service.api import page
from service.api.fleet import Alone, Member
from service.api.health import Probes
from service.api.inference_v2 import InferenceV2
from service.api.keys import KeyMiddleware
from service.api.lifecycle import Lifecycle, LifecycleMiddleware
from service.api.openapi import describe
from service.api.requests import RequestMiddleware, answer_framework_error
from service.api.routes import Endpoints
from service.api.vertex import Vertex
from service.channel import Channel
from service.engines.base import Engine
from service.metrics import Metrics, program_version
from service.settings import Settings


def create_app(
    settings: Settings,
    *,
    engine: Engine | None = None,
    registry: CollectorRegistry | None = None,
    channel: Channel | None = None,
    open_first: bool = False,
) -> FastAPI:
    """The service as an ASGI application; its lifespan opens the model in the background and drains it at the end.

    `app.state.lifecycle` tells where it stands. Without `engine` the one of the settings is loaded, without
    `registry` the metrics get their own. `channel`: to the supervisor, for one of several workers; `open_first`:
    nothing is answered before the model is open, since others serve meanwhile.
    """
    metrics = Metrics(registry or CollectorRegistry())
    lifecycle = Lifecycle(settings, metrics, engine)
    fleet = Member(channel, lifecycle, metrics) if channel else Alone(lifecycle, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with lifecycle.running():
            if open_first:
                await lifecycle.opened.wait()
            yield

    app = FastAPI(
        title="RepVGG image classification",
        version=program_version(),
        description="Images in, labels with probabilities out.",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # they would load their scripts from a public host; ours is a page of service/page
        redoc_url=None,
        exception_handlers={HTTPException: answer_framework_error, RequestValidationError: answer_framework_error},
    )
    app.state.lifecycle = lifecycle
    # The last one added is the outermost.
    health_route = settings.vertex_health_route
    app.add_middleware(KeyMiddleware, keys=settings.api_keys, vertex_health_route=health_route)
    app.add_middleware(RequestMiddleware, metrics=metrics, vertex_health_route=health_route)
    app.add_middleware(LifecycleMiddleware, lifecycle=lifecycle)
    probes = Probes(lifecycle, settings, fleet)
    if channel:
        channel.answer("why not alive", probes.why_not_alive)
    # The first route of a path wins: those that Vertex AI names come first. Then what is asked for most.
    Vertex(lifecycle, settings, probes).add_to(app.router)
    Endpoints(lifecycle, settings, fleet).add_to(app.router)
    probes.add_to(app.router)
    InferenceV2(lifecycle, settings, probes).add_to(app.router)
    page.add_to(app.router)
    app.openapi = partial(describe, app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app
