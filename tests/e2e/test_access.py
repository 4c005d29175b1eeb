"""Who asks, and whether they may, over a real socket: proxies, reloads, and connections that are refused."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from conftest import Server

XFF = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9"}


def logged_client(server: Server, path: str) -> str:
    assert httpx.get(f"{server.url}{path}", headers=XFF, timeout=120).status_code == 404
    return str(server.wait_for_line(f"GET {path}")["client"])


@pytest.mark.parametrize(
    ("flags", "client"),
    [
        ([], "127.0.0.1"),
        (["--trusted-proxies", "10.0.0.0/8"], "127.0.0.1"),
        (["--trusted-proxies", "127.0.0.1"], "203.0.113.9"),
    ],
)
def test_x_forwarded_for_is_believed_only_from_configured_proxies_and_then_logged(
    start: Callable[..., Server], flags: list[str], client: str
) -> None:
    server = start(*flags, environ={"FORWARDED_ALLOW_IPS": "*"}).wait_until_serving()  # uvicorn's variable
    assert logged_client(server, "/nowhere") == client


def test_a_reload_needs_a_key_or_a_local_caller_and_no_foreign_origin(start: Callable[..., Server]) -> None:
    server = start().wait_until_serving()
    foreign: list[dict[str, str]] = [
        {"Host": "evil.example.com"},
        {"Host": "evil.example.com", "Origin": "http://evil.example.com"},
        {"Origin": "http://evil.example.com"},
        {"Origin": "null"},
        XFF,
    ]
    for headers in foreign:
        reply = httpx.post(f"{server.url}/models/reload", headers=headers, timeout=120)
        assert (reply.status_code, reply.json()["code"]) == (403, "forbidden"), headers
    assert httpx.post(f"{server.url}/models/reload", timeout=120).status_code == 200


def test_with_keys_a_reload_needs_one_of_them_and_may_come_through_a_proxy(start: Callable[..., Server]) -> None:
    server = start("--trusted-proxies", "127.0.0.0/8", environ={"REPVGG_API_KEYS": "k"}).wait_until_serving()
    url, key = f"{server.url}/models/reload", {"X-API-Key": "k", "Host": "repvgg.example.com"}
    assert httpx.post(url, timeout=120).status_code == 401
    assert httpx.post(url, headers=key | XFF, timeout=120).status_code == 200
    assert httpx.post(url, headers=key | {"Origin": "http://evil.example.com"}, timeout=120).status_code == 403


def test_connections_that_are_refused_are_counted(server: Server) -> None:
    def refused() -> float:
        text = httpx.get(f"{server.url}/metrics", timeout=120).text
        (value,) = re.findall(r'^repvgg_connections_refused_total{code="malformed_request"} (\S+)$', text, re.MULTILINE)
        return float(value)

    before = refused()
    with socket.create_connection(("127.0.0.1", server.port), 120) as connection:
        connection.sendall(b"GET / HTTP/9\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert refused() == before + 1
