"""All workers of a port as one of them sees them: what a worker is asked for, its supervisor asks of every worker.

Whichever worker a request reaches, metrics are those of all workers, and a reload reaches all.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.registry import Collector

from service.api.lifecycle import Lifecycle
from service.observe.aggregation import Snapshot, Totals, snapshot
from service.observe.metrics import Metrics
from service.runtime.channel import Channel


class WorkerGroup:
    """As `api.processes.Processes`; the worker's own share of each answer comes from `lifecycle` and `metrics`."""

    def __init__(self, channel: Channel, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._channel = channel
        self._lifecycle = lifecycle
        self._metrics = metrics
        channel.answer("samples", self._samples)
        channel.answer("reload", self._reload)

    async def reload(self, changes: Mapping[str, str]) -> None:
        await self._channel.ask("reload", changes=changes)

    async def collector(self) -> Collector:
        return Totals(await self._channel.ask("samples"))

    async def checks(self) -> dict[str, str]:
        serving = await self._channel.ask("serving")
        return {"workers": f"{serving['workers']} of {serving['wanted']} serve"}

    async def _samples(self) -> Snapshot:
        return snapshot(self._metrics.registry)

    async def _reload(self, changes: dict[str, str]) -> dict[str, str]:
        await self._lifecycle.reload(changes)
        return self._lifecycle.what_serves()
