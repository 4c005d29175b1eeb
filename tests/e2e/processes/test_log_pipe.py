"""A server whose log nobody reads serves on, says so in its metrics, and ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

import service

ROOT = Path(service.__file__).parents[1]
LIMIT_S = 120
# A line has its path twice; the queue has 1 MiB.
PATH = f"/{'x' * 900}"
REQUESTS = 800


@contextmanager
def unread(*flags: object) -> Iterator[tuple[subprocess.Popen[str], HTTPConnection]]:
    """A server that serves, of whose log only the beginning was read, and a connection to it."""
    command = [sys.executable, "-m", "service", "serve", "--engine", "onnxruntime", "--port", 0, *flags]
    with subprocess.Popen([*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = map(json.loads, iter(process.stdout.readline, ""))
            url = next(line["url"] for line in lines if line["msg"].startswith("serving "))
            connection = HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]), timeout=LIMIT_S)
            with closing(connection):
                yield process, connection
        finally:
            process.kill()


def dropped(connection: HTTPConnection) -> float:
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    (value,) = re.findall(r"^repvgg_log_lines_dropped_total (\S+)$", text, re.MULTILINE)
    return float(value)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unread_log_pipe_blocks_nothing_and_the_server_ends(tiny_bundle: Path, workers: int) -> None:
    with unread("--model", tiny_bundle, "--drain-seconds", 0, "--workers", workers) as (process, connection):
        assert dropped(connection) == 0
        for _ in range(REQUESTS * workers):
            connection.request("GET", PATH)
            reply = connection.getresponse()
            reply.read()
            assert reply.status == 404
        assert dropped(connection) > 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
