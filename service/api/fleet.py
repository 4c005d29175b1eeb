"""Who serves on this port: one process alone, or one of several workers, of which a supervisor knows all.

1. whichever worker is asked, metrics are those of all, and a reload reaches all;
2. a process alone asks nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from prometheus_client.registry import Collector

from service.api.lifecycle import Lifecycle
from service.channel import Channel
from service.metrics import Metrics
from service.totals import Snapshot, Totals, snapshot


class Fleet(Protocol):
    async def reload(self, changes: Mapping[str, str]) -> None:
        """As Lifecycle.reload, of all; also raises what that raises."""

    async def collector(self) -> Collector:
        """The metrics of all."""

    async def checks(self) -> dict[str, str]:
        """What `/readyz?verbose` says about the others."""


class Alone:
    def __init__(self, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._lifecycle = lifecycle
        self._metrics = metrics

    async def reload(self, changes: Mapping[str, str]) -> None:
        await self._lifecycle.reload(changes)

    async def collector(self) -> Collector:
        return self._metrics.registry

    async def checks(self) -> dict[str, str]:
        return {}


class Member:
    """What it is asked for, the supervisor asks of every worker, this one included."""

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
