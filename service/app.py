"""Wires the web application; no logic lives here.

The layers, outermost first: LifecycleMiddleware (draining, reloads), ProxyMiddleware (the real client),
RequestMiddleware (id, timings, log, metrics, errors, HEAD), KeyMiddleware, GateMiddleware, DirectMiddleware, routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException

from service.api import page
from service.api.access.gate import GateMiddleware
from service.api.access.keys import KeyMiddleware
from service.api.access.proxies import ProxyMiddleware
from service.api.health import Probes
from service.api.lifecycle import Lifecycle, LifecycleMiddleware
from service.api.openapi import describe
from service.api.processes import Processes, SingleProcess
from service.api.protocols.v2 import InferenceV2
from service.api.protocols.vertex import Vertex
from service.api.requests import RequestMiddleware, answer_framework_error
from service.api.routes import DirectMiddleware, Endpoints
from service.engines.base import Engine
from service.feedback.answered import Answered
from service.feedback.keeper import Keeper
from service.observe.metrics import Metrics, program_version
from service.settings import Settings

if TYPE_CHECKING:
    from service.observe.tracing import Tracing


def create_app(
    settings: Settings,
    *,
    engine: Engine | None = None,
    registry: CollectorRegistry | None = None,
    join: Callable[[Lifecycle, Metrics, Answered], Processes] = SingleProcess,
    open_first: bool = False,
    tracing: Tracing | None = None,
) -> FastAPI:
    """The service as an ASGI application. Its lifespan opens the model in the background and drains it at the end.

    `app.state.lifecycle` and `app.state.probes` expose its state. Without `engine`, the settings choose one; without
    `registry`, the metrics get one of their own. `join` returns the processes that this one serves with. With
    `open_first`, requests wait until the model is open, because other processes serve meanwhile. `tracing` is closed at
    the end.
    """
    metrics = Metrics(registry or CollectorRegistry())
    lifecycle = Lifecycle(settings, metrics, engine)
    answered = Answered(settings.feedback, metrics.feedback)
    processes = join(lifecycle, metrics, answered)

    keeper = Keeper.of(settings, metrics.kept)
    followers = [*([answered.follow] if settings.feedback else []), *([keeper.follow] if keeper else [])]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if keeper:
            keeper.start()
        async with lifecycle.running():
            if open_first:
                await lifecycle.opened.wait()
            yield
        if keeper:
            await asyncio.to_thread(keeper.close)
        if tracing:
            await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="RepVGG image classification",
        version=program_version(),
        description="Images in, labels with probabilities out.",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's pages load scripts from a public host; ours is in service/page
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours is in observe.tracing, and asked for
        exception_handlers={HTTPException: answer_framework_error, RequestValidationError: answer_framework_error},
    )
    app.state.lifecycle = lifecycle
    # The last middleware added is the outermost.
    health_route = settings.vertex_health_route
    app.add_middleware(DirectMiddleware, router=app.router)
    app.add_middleware(GateMiddleware, lifecycle=lifecycle, settings=settings)
    app.add_middleware(KeyMiddleware, keys=settings.api_keys, vertex_health_route=health_route)
    app.add_middleware(
        RequestMiddleware,
        metrics=metrics,
        vertex_health_route=health_route,
        tracing=tracing,
        objective_s=settings.objective_ms / 1000,
        followers=followers,
    )
    if settings.trusted_proxies:
        app.add_middleware(ProxyMiddleware, proxies=settings.trusted_proxies)
    app.add_middleware(LifecycleMiddleware, lifecycle=lifecycle)
    app.state.probes = probes = Probes(lifecycle, settings, processes)
    # The first route that matches wins: those that Vertex AI names come first, then the most frequent ones.
    Vertex(lifecycle, settings, probes).add_to(app.router)
    Endpoints(lifecycle, settings, processes).add_to(app.router)
    probes.add_to(app.router)
    InferenceV2(lifecycle, settings, probes).add_to(app.router)
    page.add_to(app.router)
    app.openapi = partial(describe, app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app
