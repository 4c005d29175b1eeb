"""The real server: a process, a socket on 127.0.0.1, ONNX Runtime."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import service
from models.manifest import Confidence
from models.store import open_bundle
from models.versions import write_version

ROOT = Path(service.__file__).parents[1]
LIMIT_S = 120.0


class Server:
    """`repvgg serve` in its own process; its log lines are collected."""

    def __init__(
        self, *flags: object, environ: dict[str, str] | None = None, program: Sequence[str | Path] = ("-m", "service")
    ) -> None:
        self.lines: list[dict[str, Any]] = []
        self._arrived: queue.Queue[dict[str, Any] | None] = queue.Queue()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("REPVGG_")}
        self.process = subprocess.Popen(
            [sys.executable, *program, "serve", "--engine", "onnxruntime", *map(str, flags)],
            cwd=ROOT,
            env=inherited | (environ or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._arrived.put(json.loads(line))
        self._arrived.put(None)

    def wait_for_line(self, start: str) -> dict[str, Any]:
        """The next log line whose message starts with `start`."""
        while True:
            line = self._arrived.get(timeout=LIMIT_S)
            assert line is not None, f"the server ended: {self.lines}"
            self.lines.append(line)
            if line["msg"].startswith(start):
                return line

    def wait_until_serving(self) -> Server:
        self.url: str = self.wait_for_line("serving ")["url"]
        self.port = int(self.url.rpartition(":")[2])
        return self

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> tuple[int, str]:
        """Waits for the end -> exit code and stderr."""
        assert self.process.stderr is not None
        code = self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        while not self._arrived.empty():
            if (line := self._arrived.get()) is not None:
                self.lines.append(line)
        return code, self.process.stderr.read()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def start(tiny_bundle: Path) -> Iterator[Callable[..., Server]]:
    """`start(*flags, environ={...})` -> a Server with the tiny bundle on a free port, unless flags say otherwise."""
    servers: list[Server] = []

    def run(*flags: object, environ: dict[str, str] | None = None) -> Server:
        servers.append(Server("--model", tiny_bundle, "--port", 0, *flags, environ=environ))
        return servers[-1]

    yield run
    for server in servers:
        server.close()


@contextmanager
def serving(bundle: Path, *flags: object) -> Iterator[Server]:
    """A server with default settings, but for `flags`."""
    running = Server("--model", bundle, "--port", 0, *flags)
    try:
        yield running.wait_until_serving()
    finally:
        running.close()


@pytest.fixture(scope="session")
def server(tiny_bundle: Path) -> Iterator[Server]:
    """A shared one, for tests that do not change it."""
    with serving(tiny_bundle) as running:
        yield running


@pytest.fixture(scope="session")
def wide_server(wide_bundle: Path) -> Iterator[Server]:
    """The same with a bundle of 1000 classes."""
    with serving(wide_bundle) as running:
        yield running


@pytest.fixture(scope="session")
def confidence() -> Confidence:
    """With it the shipped network for CIFAR-10 is sure of the sample cat, and not of what these tests draw."""
    return Confidence(
        fitted_at="2026-11-29T12:00:00Z",
        images=1000,
        precision="fp32",
        threshold=0.9,
        accuracy=0.9,
        answered=0.6,
        kept=0.8,
        quantiles={0.7: 0.0, 0.9: 0.6, 0.99: 0.95},
    )


@pytest.fixture(scope="session")
def doubting_server(confidence: Confidence, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With that network, which explains its answers too."""
    folder = tmp_path_factory.mktemp("store") / "repvgg-tiny-cifar10" / "100"
    write_version(open_bundle("repvgg-tiny-cifar10"), folder, confidence=confidence)
    with serving(folder, "--precision", "fp32") as running:
        yield running


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=LIMIT_S) as client:
        yield client


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    def wait(condition: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < give_up_at, "timed out"
            time.sleep(0.02)

    return wait
