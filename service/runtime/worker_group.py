"""All workers of a port, from the point of view of one of them: it forwards questions to its supervisor.

Whichever worker gets the request, /metrics covers all workers and a reload applies to all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from prometheus_client.registry import Collector

from service.api.lifecycle import Lifecycle
from service.observe.aggregation import MergedMetrics, Snapshot, snapshot
from service.observe.metrics import Metrics
from service.runtime.channel import Channel


class WorkerGroup:
    """Implements `api.processes.Processes`; this worker's own part comes from `lifecycle` and `metrics`."""

    def __init__(self, channel: Channel, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._channel = channel
        self._lifecycle = lifecycle
        self._metrics = metrics
        channel.answer("samples", self._samples)
        channel.answer("reload", self._reload)

    async def reload(self, changes: Mapping[str, str]) -> None:
        await self._channel.ask("reload", changes=changes)

    async def collector(self) -> Collector:
        return await asyncio.to_thread(MergedMetrics, await self._channel.ask("samples"))

    async def checks(self) -> dict[str, str]:
        checks: dict[str, str] = await self._channel.ask("checks")
        return checks

    async def _samples(self) -> Snapshot:
        return await asyncio.to_thread(snapshot, self._metrics.registry)

    async def _reload(self, changes: dict[str, str]) -> dict[str, str]:
        await self._lifecycle.reload(changes)
        return self._lifecycle.what_serves()
