"""The application on a fake engine, through starlette's test client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from service.app import create_app
from service.engines.runtimes.fake import FakeEngine
from service.settings import Settings


def _wait_until(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    give_up_at = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """`wait_until(condition)` looks every few milliseconds, for a minute."""
    return _wait_until


@pytest.fixture
def registry() -> CollectorRegistry:
    """Of the application that `serve` starts."""
    return CollectorRegistry()


@pytest.fixture
def fake_engine() -> FakeEngine:
    """One that fits the tiny bundle and answers at once."""
    return FakeEngine(num_classes=10, input_size=32)


@pytest.fixture
def serve(
    tiny_bundle: Path, registry: CollectorRegistry, fake_engine: FakeEngine
) -> Iterator[Callable[..., TestClient]]:
    """`serve(engine, wait=True, **settings)` -> a client of the tiny bundle's service, once that is ready."""
    with ExitStack() as stack:

        def start(engine: FakeEngine = fake_engine, *, wait: bool = True, **settings: Any) -> TestClient:
            settings = {"model": str(tiny_bundle), **settings}
            app = create_app(Settings(**settings), engine=engine, registry=registry)
            client = stack.enter_context(TestClient(app, "http://localhost", client=("127.0.0.1", 50000)))
            if wait:
                _wait_until(lambda: client.get("/startupz").status_code == 200)
            return client

        yield start


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> TestClient:
    """Of a service with the default settings."""
    return serve()
