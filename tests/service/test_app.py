from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from service.app import create_app
from service.engines.runtimes.fake import FakeEngine
from service.settings import Settings


def test_metrics_go_to_the_registry_that_is_handed_in(tiny_bundle: Path) -> None:
    registry = CollectorRegistry()
    create_app(Settings(model=str(tiny_bundle)), engine=FakeEngine(10, 32), registry=registry)
    assert registry.get_sample_value("repvgg_requests_rejected_total", {"reason": "limit"}) == 0


def test_two_applications_share_nothing(tiny_bundle: Path) -> None:
    settings = Settings(model=str(tiny_bundle))
    first, second = (create_app(settings, engine=FakeEngine(10, 32)) for _ in range(2))
    first.state.lifecycle.drain()
    assert not second.state.lifecycle.draining


def test_the_lifespan_opens_the_model_and_closes_it(tiny_bundle: Path) -> None:
    engine = FakeEngine(10, 32)

    async def scenario() -> list[str]:
        app = create_app(Settings(model=str(tiny_bundle)), engine=engine)
        sent: list[str] = []
        arriving = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict[str, Any]:
            message = next(arriving)
            if message == "lifespan.shutdown":
                await app.state.lifecycle.opened.wait()
                assert app.state.lifecycle.failure is None
            return {"type": message}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await app({"type": "lifespan", "state": {}}, receive, send)
        return sent

    assert asyncio.run(scenario()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert engine.closed
