from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from starlette.requests import Request

from service.api.health import Probes
from service.api.requests import Exchange
from service.engines.runtimes.fake import FakeEngine
from service.settings import Settings

if TYPE_CHECKING:
    from starlette.testclient import TestClient


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/readyz", "/startupz", "/ping", "/v2/health/live"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_all_is_well(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 200


def test_while_the_model_is_opened_it_lives_but_is_not_ready(serve: Callable[..., TestClient]) -> None:
    gate = threading.Event()
    client = serve(FakeEngine(10, 32, gate=gate), wait=False)
    assert client.get("/livez").json() == {"status": "alive"}
    for path in ("/readyz", "/startupz"):
        reply = client.get(path)
        assert (reply.status_code, reply.json()["code"], reply.headers["retry-after"]) == (503, "not_ready", "1")
        assert reply.json()["detail"] == "the model is being opened and checked"
    assert client.get("/readyz?verbose").json()["checks"]["golden"] == "pending"
    gate.set()


def test_verbose_lists_the_checks(client: TestClient) -> None:
    assert "checks" not in client.get("/readyz").json()
    assert client.get("/readyz?verbose").json() == {
        "status": "ready",
        "checks": {
            **{"checksums": "ok", "golden": "ok", "warm_up": "ok"},
            **{"version": "ok", "engine": "ok", "draining": "no"},
        },
    }


def test_draining_is_not_ready_but_lives_and_answers(client: TestClient, jpeg_bytes: bytes) -> None:
    client.app.state.lifecycle.drain()
    reply = client.get("/readyz?verbose")
    assert (reply.status_code, reply.json()["code"]) == (503, "draining")
    assert reply.json()["checks"]["draining"] == "yes"
    assert client.get("/livez").status_code == client.get("/startupz").status_code == 200
    reply = client.post("/classify", content=jpeg_bytes, headers={"content-type": "image/jpeg"})
    assert reply.status_code == 200


def test_while_the_engine_is_started_again_it_lives_but_is_not_ready(serve: Callable[..., TestClient]) -> None:
    class Leaving(FakeEngine):
        on_restart: Any = None
        unavailable_s = 0.0

        def restart(self) -> None:
            raise AssertionError("it is being started already")

    engine = Leaving(10, 32)
    client = serve(engine)
    engine.unavailable_s = 1.5
    reply = client.get("/readyz?verbose")
    assert (reply.status_code, reply.json()["code"], reply.headers["retry-after"]) == (503, "not_ready", "1")
    assert reply.json()["detail"] == "the engine failed 1.5 s ago and is restarting"
    assert reply.json()["checks"]["engine"] == "starting again"
    assert client.get("/livez").status_code == client.get("/startupz").status_code == 200
    engine.unavailable_s = 31.0
    assert "has failed to restart for 31 s" in client.get("/livez").json()["detail"]
    engine.unavailable_s = 0.0
    assert client.get("/readyz").status_code == client.get("/livez").status_code == 200


def test_a_start_that_failed_is_told_without_internals(
    serve: Callable[..., TestClient], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    client = serve(wait=False, model=str(tmp_path / "nothing"))
    wait_until(lambda: client.app.state.lifecycle.failure is not None)
    reply = client.get("/readyz?verbose")
    assert (reply.status_code, reply.json()["checks"]["checksums"]) == (503, "failed")
    assert str(tmp_path) not in reply.text


@pytest.mark.parametrize(("busy_s", "timeout_ms", "alive"), [(29, 1, True), (31, 1, False), (31, 20_000, True)])
def test_an_engine_that_is_stuck_is_not_alive(busy_s: float, timeout_ms: int, alive: bool) -> None:
    batcher = SimpleNamespace(longest_running_s=busy_s, engine_unavailable_s=0.0)
    lifecycle = SimpleNamespace(classifier=SimpleNamespace(batcher=batcher))
    request = Request({"type": "http", "state": {"exchange": Exchange("r", "/livez", 0.0, lambda: 0.0)}})
    reply = asyncio.run(Probes(lifecycle, Settings(timeout_ms=timeout_ms), processes=None).livez(request))
    assert reply.status_code == (200 if alive else 500)
    assert alive or b"busy with one batch for 31 s" in reply.body


@pytest.mark.parametrize(("busy_s", "timeout_ms", "ready"), [(4, 1, True), (6, 1, False), (19, 20_000, True)])
def test_while_the_engine_is_stuck_it_is_not_ready(
    serve: Callable[..., TestClient], busy_s: float, timeout_ms: int, ready: bool
) -> None:
    client = serve(FakeEngine(10, 32), timeout_ms=timeout_ms)
    client.app.state.lifecycle.classifier.batcher = SimpleNamespace(
        longest_running_s=busy_s, engine_unavailable_s=0.0, close=noop, idle=True
    )
    reply = client.get("/readyz?verbose")
    assert client.get("/livez").status_code == 200
    assert (reply.status_code, reply.json()["checks"]["engine"]) == ((200, "ok") if ready else (503, "stuck"))
    for path in ("/ping", "/v2/health/ready", "/v2/models/tiny/ready"):
        assert client.get(path).status_code == reply.status_code
    assert ready or "busy with one batch for 6 s" in reply.json()["detail"]


async def noop(grace_s: float) -> None:
    """The engine at work is a matter of other tests."""
