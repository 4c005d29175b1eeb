"""The processes that serve on this port: one here; `runtime.messages` has several, under a supervisor.

Metrics, reloads and feedback cover all processes, whichever one a request reaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from prometheus_client.registry import Collector

from service.api.lifecycle import Lifecycle
from service.feedback.answered import Answered, Judgement
from service.observe.metrics import Metrics


class Processes(Protocol):
    async def reload(self, changes: Mapping[str, str]) -> None:
        """Lifecycle.reload in every process; raises the same errors."""

    async def collector(self) -> Collector:
        """The metrics of all processes."""

    async def judge(self, request_id: str, index: int, label: str | None) -> Judgement:
        """Answered.judge, in the process that gave the answer; raises the same errors."""

    async def checks(self) -> dict[str, str]:
        """What `/readyz?verbose` reports about the other processes."""


class SingleProcess:
    def __init__(self, lifecycle: Lifecycle, metrics: Metrics, answered: Answered) -> None:
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._answered = answered

    async def reload(self, changes: Mapping[str, str]) -> None:
        await self._lifecycle.reload(changes)

    async def collector(self) -> Collector:
        return self._metrics.registry

    async def judge(self, request_id: str, index: int, label: str | None) -> Judgement:
        return self._answered.judge(request_id, index, label)

    async def checks(self) -> dict[str, str]:
        return {}
