from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from models.errors import BundleError
from service.api.lifecycle import Lifecycle
from service.engines.fake import FakeEngine
from service.errors import NotReady
from service.metrics import Metrics
from service.settings import Settings


def lifecycle_of(model: Path, engine: FakeEngine) -> Lifecycle:
    return Lifecycle(Settings(model=str(model)), Metrics(CollectorRegistry()), engine)


def test_the_model_is_opened_in_the_background_and_closed_at_the_end(
    tiny_bundle: Path, fake_engine: FakeEngine, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        lifecycle = lifecycle_of(tiny_bundle, fake_engine)
        async with lifecycle.running():
            with pytest.raises(NotReady, match="being opened"):
                lifecycle.serving()
            await lifecycle.opened.wait()
            deadline = time.monotonic() + 60
            assert await lifecycle.serving().classify([jpeg_bytes], top_k=1, deadline=deadline)
            assert not fake_engine.closed
        assert fake_engine.closed

    asyncio.run(scenario())


def test_a_start_that_fails_is_kept_with_its_reason(tmp_path: Path, fake_engine: FakeEngine) -> None:
    async def scenario() -> None:
        lifecycle = lifecycle_of(tmp_path, fake_engine)
        async with lifecycle.running():
            await lifecycle.opened.wait()
            assert lifecycle.state_of_opening == "failed"
            assert isinstance(lifecycle.failure, BundleError)
            with pytest.raises(NotReady, match="could not be opened"):
                lifecycle.serving()

    asyncio.run(scenario())


def test_an_end_before_the_model_is_open_waits_for_no_request(tiny_bundle: Path) -> None:
    gate = threading.Event()

    async def scenario() -> None:
        lifecycle = lifecycle_of(tiny_bundle, FakeEngine(10, 32, gate=gate))
        async with lifecycle.running():
            await asyncio.sleep(0)
        assert lifecycle.classifier is None
        gate.set()  # the thread that warms the engine up cannot be interrupted, and the loop waits for it

    asyncio.run(scenario())


def test_draining_is_announced_while_requests_are_answered(
    tiny_bundle: Path, fake_engine: FakeEngine, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        lifecycle = lifecycle_of(tiny_bundle, fake_engine)
        async with lifecycle.running():
            await lifecycle.opened.wait()
            lifecycle.drain()
            assert lifecycle.draining
            (fate,) = await lifecycle.serving().classify([jpeg_bytes], top_k=1, deadline=time.monotonic() + 60)
            assert len(fate.predictions) == 1

    asyncio.run(scenario())
