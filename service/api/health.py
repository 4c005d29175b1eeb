"""Probes: /livez (alias /healthz), /readyz, /startupz, and the names that platforms have for them.

None of them needs a key or touches the model.

1. /livez fails only when a restart would help: the event loop answers it, and the engine must be neither stuck nor
   away for long;
2. /readyz says yes once checksums, golden check and warm-up are done, and no while draining or while the engine is
   started again;
3. /startupz says whether start-up is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from service.api.lifecycle import RETRY_WHILE_DRAINING_S, Lifecycle
from service.api.openapi import HEALTH, operation_id
from service.api.problems import Fault, fault_of
from service.api.processes import Processes
from service.api.requests import Exchange
from service.errors import Draining, NotReady, ServiceError
from service.settings import Settings

# A batch that takes longer than both of these will not come back.
STUCK_AFTER_S = 30.0
STUCK_AFTER_DEADLINES = 3
RETRY_WHILE_AWAY_S = 1.0


class Probes:
    def __init__(self, lifecycle: Lifecycle, settings: Settings, processes: Processes) -> None:
        self._lifecycle = lifecycle
        self._processes = processes
        self._stuck_after_s = max(STUCK_AFTER_S, STUCK_AFTER_DEADLINES * settings.timeout_ms / 1000)

    def add_to(self, router: APIRouter) -> None:
        probes = {
            "/livez": self.livez,
            "/healthz": self.livez,
            "/readyz": self.readyz,
            "/startupz": self.startupz,
            "/ping": self.readyz,  # Amazon SageMaker
            "/v2/health/live": self.livez,  # Open Inference Protocol
            "/v2/health/ready": self.readyz,
        }
        for path, probe in probes.items():
            self._add(router, path, probe)

    def add_ready_to(self, router: APIRouter, path: str) -> None:
        """/readyz by another name."""
        self._add(router, path, self.readyz)

    def _add(self, router: APIRouter, path: str, probe: Callable[..., Any]) -> None:
        router.add_api_route(path, probe, methods=["GET"], operation_id=operation_id(path), **HEALTH)
        # Load balancers like to ask with HEAD.
        router.add_api_route(path, probe, methods=["HEAD"], include_in_schema=False)

    async def livez(self, request: Request) -> Response:
        """Is the process alive: do the event loop and the engine make progress?"""
        if detail := await self.why_not_alive():
            return Exchange.of(request).problem(Fault("internal_error", detail))
        return JSONResponse({"status": "alive"})

    async def why_not_alive(self) -> str:
        """Empty if it is."""
        if self._engine_age_s() > self._stuck_after_s:
            return f"the engine has been busy with one batch for {self._engine_age_s():.0f} s"
        if self._engine_away_s() > self._stuck_after_s:
            return f"the engine could not be started again for {self._engine_away_s():.0f} s"
        return ""

    async def readyz(self, request: Request) -> Response:
        """May requests come? `?verbose` lists the checks."""
        checks = self._checks() | await self._processes.checks() if "verbose" in request.query_params else None
        try:
            self._lifecycle.serving()
            self._refuse_while_draining()
            self._refuse_while_engine_is_away()
        except ServiceError as error:
            return Exchange.of(request).problem(fault_of(error), checks=checks)
        return JSONResponse({"status": "ready"} | ({"checks": checks} if checks else {}))

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

    def _refuse_while_engine_is_away(self) -> None:
        if away_s := self._engine_away_s():
            detail = f"the engine failed {away_s:.1f} s ago and is being started again"
            raise NotReady(detail, RETRY_WHILE_AWAY_S)

    def _engine_away_s(self) -> float:
        """0 while it is there."""
        classifier = self._lifecycle.classifier
        return 0.0 if classifier is None else classifier.batcher.engine_unavailable_s

    def _engine_age_s(self) -> float:
        """How long the batch in the engine has been there, seconds."""
        classifier = self._lifecycle.classifier
        return 0.0 if classifier is None else classifier.batcher.longest_running_s

    def _state_of_engine(self) -> str:
        if self._engine_away_s():
            return "starting again"
        return "ok" if self._engine_age_s() <= self._stuck_after_s else "stuck"

    def _checks(self) -> dict[str, str]:
        opened = self._lifecycle.state_of_opening
        return {
            "checksums": opened,
            "golden": opened,
            "warm_up": opened,
            "engine": self._state_of_engine(),
            "draining": "yes" if self._lifecycle.draining else "no",
        }
