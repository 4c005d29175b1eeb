"""All workers of a port, from the point of view of one of them: it forwards questions to its supervisor.

Whichever worker gets the request, /metrics covers all workers, a reload applies to all of them, and feedback reaches
the one that gave the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from prometheus_client.registry import Collector

from service.api.lifecycle import Lifecycle
from service.errors import UnknownRequest
from service.feedback.answered import Answered, Judgement
from service.observe.aggregation import MergedMetrics, Snapshot, snapshot
from service.observe.metrics import Metrics
from service.runtime.messages.channel import Channel


class WorkerGroup:
    """Implements `api.processes.Processes`; this worker's own part comes from `lifecycle` and `metrics`."""

    def __init__(self, channel: Channel, lifecycle: Lifecycle, metrics: Metrics, answered: Answered) -> None:
        self._channel = channel
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._answered = answered
        channel.answer("samples", self._samples)
        channel.answer("reload", self._reload)
        channel.answer("judge", self._judge)

    async def reload(self, changes: Mapping[str, str]) -> None:
        await self._channel.ask("reload", changes=changes)

    async def collector(self) -> Collector:
        return await asyncio.to_thread(MergedMetrics, await self._channel.ask("samples"))

    async def judge(self, request_id: str, index: int, label: str | None) -> Judgement:
        try:
            return self._answered.judge(request_id, index, label)
        except UnknownRequest:
            return Judgement(**await self._channel.ask("judge", request_id=request_id, index=index, label=label))

    async def checks(self) -> dict[str, str]:
        checks: dict[str, str] = await self._channel.ask("checks")
        return checks

    async def _samples(self) -> Snapshot:
        return await asyncio.to_thread(snapshot, self._metrics.registry)

    async def _reload(self, changes: dict[str, str]) -> dict[str, str]:
        await self._lifecycle.reload(changes)
        return self._lifecycle.what_serves()

    async def _judge(self, request_id: str, index: int, label: str | None) -> dict[str, Any]:
        return asdict(self._answered.judge(request_id, index, label))
