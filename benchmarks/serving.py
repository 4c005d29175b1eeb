"""Runs `repvgg serve` for a benchmark, and measures the memory of a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass
class Served:
    """A running server. Its log goes to a file, since a pipe would fill up unless it is read."""

    process: subprocess.Popen[bytes]
    log: TextIO
    url: str = ""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def lines(self) -> Iterator[dict[str, Any]]:
        """The log so far."""
        self.log.seek(0)
        return (json.loads(line) for line in self.log if line.endswith("\n"))


@contextmanager
def served(*flags: str, workers: int = 1) -> Iterator[Served]:
    """A server on a free port with all `workers` serving; at the end it is stopped and waited for."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--drain-seconds", "0", *flags]
    with tempfile.TemporaryFile("w+") as log:
        server = Served(subprocess.Popen([*command, "--workers", str(workers)], stdout=log), log)
        try:
            server.url = _wait(server, workers)
            yield server
        finally:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(timeout=60)


def _wait(server: Served, workers: int) -> str:
    while server.process.poll() is None:
        serving = [line for line in server.lines() if line["msg"].startswith("serving ")]
        if len(serving) >= workers:
            return str(serving[0]["url"])
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def resident_mb(pid: int | None = None) -> float:
    """Resident memory of this process or of another one; proc(5), statm."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
