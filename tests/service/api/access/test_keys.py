from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from starlette.testclient import TestClient

KEYS = ("first-key", "second-key")
OPEN = [
    *("/livez", "/healthz", "/readyz", "/startupz", "/metrics", "/ping", "/v2/health/live", "/v2/health/ready"),
    *("/v2/models/tiny/ready", "/v2/models/tiny/versions/1/ready"),
]
CLOSED = ["/models", "/openapi.json", "/unknown", "/v2", "/v2/models/tiny", "/v2/models/ready/config"]


@pytest.fixture
def guarded(serve: Callable[..., TestClient]) -> TestClient:
    return serve(api_keys=KEYS)


@pytest.mark.parametrize("path", CLOSED)
def test_everything_but_health_metrics_and_the_pages_files_needs_a_key(guarded: TestClient, path: str) -> None:
    reply = guarded.get(path)
    assert (reply.status_code, reply.json()["code"]) == (401, "unauthorized")
    assert reply.headers["www-authenticate"] == 'Bearer realm="repvgg"'
    assert "Authorization: Bearer KEY" in reply.json()["detail"]
    assert "x-request-id" in reply.headers


def test_a_reload_needs_a_key(guarded: TestClient) -> None:
    assert guarded.post("/models/reload").status_code == 401


@pytest.mark.parametrize("path", OPEN)
def test_health_and_metrics_need_none(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first-key"},
        {"Authorization": "bearer second-key"},
        {"X-API-Key": "first-key"},
        {"Authorization": "Basic eA==", "X-API-Key": "second-key"},
    ],
)
def test_any_of_the_keys_opens(guarded: TestClient, jpeg_bytes: bytes, headers: dict[str, str]) -> None:
    headers = headers | {"content-type": "image/jpeg"}
    assert guarded.post("/classify", content=jpeg_bytes, headers=headers).status_code == 200


@pytest.mark.parametrize("key", ["first-key2", "first", "FIRST-KEY", "first-key,second-key", "ä"])
def test_another_key_does_not(guarded: TestClient, key: str) -> None:
    for headers in ({"X-API-Key": key.encode()}, {"Authorization": f"Bearer {key}".encode()}):
        reply = guarded.get("/models", headers=list(headers.items()))
        assert (reply.status_code, reply.json()["detail"]) == (401, "this key is not known")


def test_without_keys_configured_nobody_is_asked(client: TestClient) -> None:
    assert client.get("/models").status_code == 200
