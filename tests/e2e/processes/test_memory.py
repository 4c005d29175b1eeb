"""After a storm the resident size returns to what it was before."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from PIL import Image

from service.machine.heap import MOST_PERIOD_S

if TYPE_CHECKING:
    from conftest import Server

LIMIT_S = 120.0
GROWTH = 1.10
ORDINARY = 300
RAW = {"Content-Type": "image/jpeg"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
AS_JSON = {"Content-Type": "application/json"}
Content = tuple[bytes, dict[str, str]]


def resident_mb(server: Server) -> float:
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def settled_mb(server: Server) -> float:
    """Once all work is done and what it freed is returned: what it still holds would hide growth."""
    before, now = float("inf"), resident_mb(server)
    while abs(now - before) > 0.01 * now:
        time.sleep(2 * MOST_PERIOD_S)
        before, now = now, resident_mb(server)
    return now


def send(server: Server, content: Content, times: int, together: int) -> None:
    """Whatever it is answered."""

    def post(_: int) -> None:
        body, headers = content
        assert httpx.post(f"{server.url}/classify", content=body, headers=headers, timeout=LIMIT_S).status_code != 500

    with ThreadPoolExecutor(together) as clients:
        list(clients.map(post, range(times)))


def form_of(parts: list[bytes]) -> bytes:
    head = b"--b\r\nContent-Disposition: form-data; name=a; filename=a\r\n\r\n"
    return b"".join(head + part + b"\r\n" for part in parts) + b"--b--"


def json_of(images: list[bytes]) -> bytes:
    return json.dumps({"images": [{"b64": base64.b64encode(image).decode()} for image in images]}).encode()


def bomb() -> bytes:
    """50 megapixels in 2 kB."""
    file = io.BytesIO()
    Image.new("RGB", (10_000, 5_000)).save(file, "WEBP", lossless=True)
    return file.getvalue()


@contextmanager
def slow_readers(server: Server, body: bytes, number: int) -> Iterator[None]:
    head = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(number):
            client = stack.enter_context(closing(socket.socket()))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
            client.sendall(head % len(body) + body)
        yield


def leave(server: Server, body: bytes, number: int) -> None:
    for _ in range(number):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            head = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
            client.sendall(head % len(body) + body[: len(body) // 2])


@pytest.fixture
def stormy(start: Callable[..., Server]) -> Server:
    return start("--timeout-ms", 20_000).wait_until_serving()


def test_after_any_storm_the_resident_size_returns(
    stormy: Server, jpeg_bytes: bytes, wait_until: Callable[..., None]
) -> None:
    large = jpeg_bytes + bytes(15 << 20)
    storms: dict[str, Callable[[], None]] = {
        "uploads": partial(send, stormy, (large, RAW), 30, 15),
        "forms": partial(send, stormy, (form_of([jpeg_bytes + bytes(400 << 10)] * 50), FORM), 16, 8),
        "base64": partial(send, stormy, (json_of([large]), AS_JSON), 8, 4),
        "bombs": partial(send, stormy, (bomb(), RAW), 8, 4),
        "leavers": partial(leave, stormy, large, 30),
    }
    ordinary = partial(send, stormy, (jpeg_bytes, RAW), ORDINARY, 8)
    ordinary()
    # The code of each kind of request takes its place once.
    for content in ((form_of([jpeg_bytes]), FORM), (json_of([large]), AS_JSON), (bomb(), RAW)):
        send(stormy, content, 1, 1)
    with slow_readers(stormy, json_of([jpeg_bytes] * 64), 20):
        before_mb = settled_mb(stormy)  # what the readers hold is in use
        for storm in storms.values():
            storm()
            wait_until(lambda: resident_mb(stormy) <= GROWTH * before_mb)
    ordinary()
    wait_until(lambda: resident_mb(stormy) <= GROWTH * before_mb)
