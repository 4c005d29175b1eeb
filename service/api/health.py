"""Probes: /livez (alias /healthz), /readyz, /startupz, and the names that platforms use for them.

None of them needs a key or touches the model.

1. /livez fails only when a restart would help: when the event loop does not answer, or the engine is stuck or has
   been unavailable for long;
2. /readyz succeeds once checksums, golden check and warm-up are done, and fails while draining, while the engine
   restarts, and while it is stuck: long before /livez fails;
3. /startupz succeeds once start-up is over;
4. under /v2 the bodies are those of the Open Inference Protocol: `{"live": true}`, `{"ready": true}`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from service.api.lifecycle import Lifecycle
from service.api.openapi import HEALTH, V2_HEALTH, operation_id
from service.api.problems import Fault, fault_of
from service.api.processes import Processes
from service.api.reading.parameters import read_flag, read_query
from service.api.reading.uploads import RETRY_WHILE_DRAINING_S
from service.api.requests import Exchange
from service.errors import Draining, NotReady, ServiceError
from service.settings import Settings

# A batch that takes longer than both of these never ends.
STUCK_AFTER_S = 30.0
STUCK_AFTER_DEADLINES = 3
# While one takes longer than the deadline and this, nobody behind it is answered in time.
LATE_AFTER_S = 5.0
RETRY_WHILE_UNAVAILABLE_S = 1.0


class Probes:
    def __init__(self, lifecycle: Lifecycle, settings: Settings, processes: Processes) -> None:
        self._lifecycle = lifecycle
        self._processes = processes
        self._keeps = settings.keep_if if settings.keep else ""
        self._stuck_after_s = max(STUCK_AFTER_S, STUCK_AFTER_DEADLINES * settings.timeout_ms / 1000)
        self._late_after_s = max(LATE_AFTER_S, settings.timeout_ms / 1000)

    def add_to(self, router: APIRouter) -> None:
        probes = {
            "/livez": self.livez,
            "/healthz": self.livez,
            "/readyz": self.readyz,
            "/startupz": self.startupz,
            "/ping": self.readyz,  # Amazon SageMaker
            "/v2/health/live": self.live,
            "/v2/health/ready": self.ready,
        }
        for path, probe in probes.items():
            description = V2_HEALTH if path.startswith("/v2/") else HEALTH
            router.add_api_route(path, probe, methods=["GET"], operation_id=operation_id(path), **description)

    def add_ready_to(self, router: APIRouter, path: str) -> None:
        """/readyz by another name."""
        router.add_api_route(path, self.readyz, methods=["GET"], operation_id=operation_id(path), **HEALTH)

    async def livez(self, request: Request) -> Response:
        """Is the process alive: do the event loop and the engine make progress?"""
        return await self._liveness(request, {"status": "alive"})

    async def live(self, request: Request) -> Response:
        """Is the process alive: do the event loop and the engine make progress?"""
        return await self._liveness(request, {"live": True})

    async def _liveness(self, request: Request, body: dict[str, Any]) -> Response:
        if detail := self.why_not_alive():
            return Exchange.of(request).problem(Fault("internal_error", detail))
        return JSONResponse(body)

    def why_not_alive(self) -> str:
        """Empty if it is alive."""
        if self._engine_age_s() > self._stuck_after_s:
            return f"the engine has been busy with one batch for {self._engine_age_s():.0f} s"
        if self._engine_unavailable_s() > self._stuck_after_s:
            return f"the engine has failed to restart for {self._engine_unavailable_s():.0f} s"
        return ""

    async def readyz(self, request: Request) -> Response:
        """Does the server accept requests? `?verbose` lists the checks."""
        return await self.readiness(request, {"status": "ready"})

    async def ready(self, request: Request) -> Response:
        """Does the server accept requests? `?verbose` lists the checks."""
        return await self.readiness(request, {"ready": True})

    async def readiness(self, request: Request, body: dict[str, Any]) -> Response:
        """`body` if the server is ready, else a problem document."""
        verbose = read_flag(read_query(request, ("verbose",)), "verbose")
        checks = self._checks() | await self._processes.checks() if verbose else None
        try:
            self._lifecycle.serving()
            self._refuse_while_draining()
            self._refuse_while_engine_is_unavailable()
            self._refuse_while_engine_is_stuck()
        except ServiceError as error:
            return Exchange.of(request).problem(fault_of(error), checks=checks)
        return JSONResponse(body | ({"checks": checks} if checks else {}))

    async def startupz(self, request: Request) -> Response:
        """Is start-up over?"""
        try:
            self._lifecycle.serving()
        except NotReady as error:
            return Exchange.of(request).problem(fault_of(error))
        return JSONResponse({"status": "started"})

    def _refuse_while_draining(self) -> None:
        if self._lifecycle.draining:
            raise Draining("the server is shutting down", RETRY_WHILE_DRAINING_S)

    def _refuse_while_engine_is_unavailable(self) -> None:
        if unavailable_s := self._engine_unavailable_s():
            detail = f"the engine failed {unavailable_s:.1f} s ago and is restarting"
            raise NotReady(detail, RETRY_WHILE_UNAVAILABLE_S)

    def _refuse_while_engine_is_stuck(self) -> None:
        if self._engine_age_s() > self._late_after_s:
            detail = f"the engine has been busy with one batch for {self._engine_age_s():.0f} s"
            raise NotReady(detail, RETRY_WHILE_UNAVAILABLE_S)

    def _engine_unavailable_s(self) -> float:
        """Seconds since it failed; 0 while it works."""
        classifier = self._lifecycle.classifier
        return 0.0 if classifier is None else classifier.batcher.engine_unavailable_s

    def _engine_age_s(self) -> float:
        """Age of the oldest batch in the engine, seconds."""
        classifier = self._lifecycle.classifier
        return 0.0 if classifier is None else classifier.batcher.longest_running_s

    def _state_of_engine(self) -> str:
        if self._engine_unavailable_s():
            return "starting again"
        return "ok" if self._engine_age_s() <= self._late_after_s else "stuck"

    def _checks(self) -> dict[str, str]:
        opened = self._lifecycle.state_of_opening
        return {
            "checksums": opened,
            "golden": opened,
            "warm_up": opened,
            "version": self._lifecycle.why_older or opened,
            "engine": self._state_of_engine(),
            "draining": "yes" if self._lifecycle.draining else "no",
            **({"stored_images": self._keeps} if self._keeps else {}),
        }
