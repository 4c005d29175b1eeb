"""Behind a real nginx with its defaults: HTTP/1.0 and `Connection: close` to us, bodies buffered."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from conftest import Server

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
CONFIG = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 100m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {url}; }}
    location /streamed/ {{ proxy_pass {url}/; proxy_request_buffering off; }}
    location /kept/ {{ proxy_pass {url}/; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def proxy(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if NGINX is None:
        pytest.skip("nginx is not installed: scripts/ci_packages.sh installs it on Debian")
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config: Path = folder / "nginx.conf"
    config.write_text("user root;" + CONFIG.format(folder=folder, port=port, url=server.url))
    running = subprocess.Popen([NGINX, "-c", config, "-e", folder / "error.log"], stderr=subprocess.DEVNULL)
    try:
        _wait(port, running)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(30)


def _wait(port: int, running: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert running.poll() is None, "nginx has ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("nginx does not listen")


@pytest.mark.parametrize("way", ["", "/streamed", "/kept"])
def test_an_image_is_classified_through_a_proxy(proxy: str, jpeg_bytes: bytes, way: str) -> None:
    reply = httpx.post(f"{proxy}{way}/classify", content=jpeg_bytes, headers={"Content-Type": "image/jpeg"}, timeout=60)
    assert (reply.status_code, len(reply.json()["results"])) == (200, 1)


@pytest.mark.parametrize("way", ["", "/streamed", "/kept"])
@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/nowhere", 300_000, 404),
        ("/nowhere", 8_000_000, 404),
        ("/classify", 40_000_000, 413),
        ("/classify?topk=1", 3_000_000, 422),
    ],
)
def test_an_early_answer_arrives_through_a_proxy(proxy: str, way: str, path: str, size: int, status: int) -> None:
    """Not the 502 that nginx makes of a reset. Each on a new connection: nginx may close one that it has answered
    early, although it said that it would keep it."""
    headers = {"Content-Type": "image/jpeg"}
    replies = [httpx.post(proxy + way + path, content=bytes(size), headers=headers, timeout=60) for _ in range(5)]
    assert [reply.status_code for reply in replies] == [status] * 5
    assert all(reply.json()["status"] == status for reply in replies)


@pytest.mark.parametrize("size", [300_000, 3_000_000, 8_000_000, 40_000_000])
def test_an_early_answer_arrives_at_a_client_that_closes(server: Server, size: int) -> None:
    """As urllib, ab and old proxies do."""
    path, status = ("/classify", 413) if size > 32 << 20 else ("/nowhere", 404)
    headers = {"Content-Type": "image/jpeg", "Connection": "close"}
    replies = [httpx.post(server.url + path, content=bytes(size), headers=headers, timeout=60) for _ in range(5)]
    assert [reply.status_code for reply in replies] == [status] * 5
