"""Missing or misbehaving Prometheus servers do not affect the service.

1. scrapers that hang, disconnect or reset delay neither requests nor other scrapers nor the exit, and use no memory;
2. a scrape during the drain is answered;
3. so is one with an Accept header that cannot be understood.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from conftest import Server

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def connect(server: Server, request: bytes) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(request)
    return connection


def scrape_and_reset(server: Server) -> None:
    with connect(server, SCRAPE) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


def memory_bytes(client: httpx.Client) -> float:
    (found,) = re.findall(r"^process_resident_memory_bytes (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found)


def test_scrapers_that_hang_or_reset_block_nothing_and_use_no_memory(
    start: Callable[..., Server], jpeg_bytes: bytes
) -> None:
    server = start("--drain-seconds", 0).wait_until_serving()
    with contextlib.ExitStack() as hanging, httpx.Client(base_url=server.url, timeout=120) as client:
        memory = []
        for _ in range(100):
            hanging.enter_context(connect(server, SCRAPE))  # reads nothing of the response
            hanging.enter_context(connect(server, SCRAPE[:20]))
            scrape_and_reset(server)
            reply = client.post("/classify", content=jpeg_bytes, headers={"content-type": "image/jpeg"})
            assert reply.status_code == 200
            memory.append(memory_bytes(client))
        # Less than the unread responses: those are in the kernel's buffers.
        assert memory[-1] < memory[20] + 80 * len(client.get("/metrics").content)
        server.signal(signal.SIGTERM)
        assert server.wait() == (0, "")
    assert server.lines[-1]["msg"] == "stopped"
    assert not [line for line in server.lines if line["level"] in ("warning", "error")]


def test_a_scrape_during_the_drain_is_answered(start: Callable[..., Server], wait_until: Callable[..., None]) -> None:
    server = start("--drain-seconds", 3600).wait_until_serving()
    server.signal(signal.SIGTERM)
    wait_until(lambda: httpx.get(f"{server.url}/readyz", timeout=120).status_code == 503)
    scraped = httpx.get(f"{server.url}/metrics", timeout=120)
    assert (scraped.status_code, "repvgg_model_info{" in scraped.text) == (200, True)


OPEN_METRICS = "application/openmetrics-text"


@pytest.mark.parametrize(
    "accept",
    [
        *(f"{OPEN_METRICS}; version={version}" for version in ("abc", "", "1.0.0.0", "-1", "9" * 5000, "1;version=x")),
        *(f"{OPEN_METRICS};version=1.0.0;escaping={escaping}" for escaping in ("", "abc", "allow-utf-8")),
        *("text/plain; version=abc", "text/plain;version=1.0.0;escaping=x", ";", "," * 30_000, "*/*;q=abc", "\xff"),
    ],
)
def test_a_scrape_with_an_accept_header_that_cannot_be_understood_is_answered(http: httpx.Client, accept: str) -> None:
    scraped = http.get("/metrics", headers=[(b"Accept", accept.encode("latin-1"))])
    assert (scraped.status_code, "repvgg_model_info{" in scraped.text) == (200, True)
