"""The wall clock jumps by an hour, forward and back, while the server is overloaded.

1. no request fails or is late, and rejected ones get a plausible Retry-After;
2. the server stays ready, and its measurements stay right.
"""

from __future__ import annotations

import itertools
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from conftest import Server

HOUR_S = 3600
CLIENTS = 6
TIMEOUT_MS = 10_000
# Computed, cached, rejected.
SORTS = {(200, "repvgg; fwd=miss"), (200, "repvgg; hit"), (503, None)}
# Shared by concurrent requests, which need not happen.
COLLAPSED = (200, "repvgg; fwd=miss; collapsed")


class Clock:
    """The server's wall clock, offset by the seconds given to `step`."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("a C compiler is needed for a clock that can be set: apt install gcc")
        self._offset = folder / "offset"
        library = folder / "wall_clock.so"
        source = Path(__file__).with_name("wall_clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
        self.environ = {"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET": str(self._offset)}
        self.step(0)

    def step(self, seconds: int) -> None:
        new = self._offset.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self._offset)


class Load:
    """Clients that send requests in sequence on persistent connections until `stop`; half of the images are equal."""

    def __init__(self, url: str, image: bytes) -> None:
        self.answers: list[httpx.Response] = []
        self.failures: list[str] = []
        self._url, self._image, self._numbers = url, image, itertools.count()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        headers = {"content-type": "image/jpeg"}
        with httpx.Client(base_url=self._url, timeout=120) as client:
            while not self._stopped.is_set():
                # Bytes after a JPEG's end are ignored, but make it a different file.
                for content in (self._image, self._image + str(next(self._numbers)).encode()):
                    try:
                        self.answers.append(client.post("/classify", content=content, headers=headers))
                    except httpx.HTTPError as error:
                        self.failures.append(repr(error))

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(120)


def sorts(answers: list[httpx.Response]) -> set[tuple[int, str | None]]:
    return {(answer.status_code, answer.headers.get("cache-status")) for answer in answers} - {COLLAPSED}


def hours_ahead(answer: httpx.Response) -> int:
    return round((parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()) / HOUR_S)


def totals(metrics: str) -> dict[str, float]:
    """The sums of the duration histograms, in seconds."""
    return {
        name: float(seconds) for name, seconds in re.findall(r"^(\w+_seconds_sum\S*) (\S+)$", metrics, re.MULTILINE)
    }


@pytest.mark.parametrize("flags", [(), ("--workers", 2)], ids=["one process", "workers"])
def test_no_request_fails_and_every_measurement_stays_right(
    start: Callable[..., Server],
    wait_until: Callable[..., None],
    draw_image: Callable[..., bytes],
    tmp_path: Path,
    flags: tuple[object, ...],
) -> None:
    clock = Clock(tmp_path)
    # A different image is rejected while another one is being processed.
    limits = ("--max-queue-bytes", 1, "--cache-bytes", 1 << 20, "--timeout-ms", TIMEOUT_MS, "--drain-seconds", 0)
    server = start(*limits, *flags, environ=clock.environ).wait_until_serving()
    began = time.monotonic()
    load = Load(server.url, draw_image(0, size=(640, 480)))
    try:
        for hours in (1, 0, -1):
            clock.step(hours * HOUR_S)
            wait_until(lambda hours=hours: {hours_ahead(answer) for answer in load.answers[-1:]} == {hours})
            since = len(load.answers)
            wait_until(lambda since=since: len(load.answers) >= since + 100 and sorts(load.answers[since:]) == SORTS)
            assert httpx.get(f"{server.url}/readyz").status_code == 200
            assert httpx.get(f"{server.url}/livez").status_code == 200
    finally:
        load.stop()
    elapsed_s = time.monotonic() - began
    assert load.failures == []
    assert sorts(load.answers) == SORTS
    assert {answer.headers.get("retry-after") for answer in load.answers} == {None, "1"}
    for answer in load.answers:
        stages_ms = [float(ms) for ms in re.findall(r"dur=([^,;]+)", answer.headers["server-timing"])]
        assert all(0 <= ms < TIMEOUT_MS for ms in stages_ms)
    sums = totals(httpx.get(f"{server.url}/metrics").text)
    assert any("repvgg_request_duration" in name for name in sums)
    assert all(0 <= seconds <= 2 * CLIENTS * elapsed_s for seconds in sums.values()), sums
    server.signal(signal.SIGTERM)
    assert server.wait() == (0, "")
    assert not [line for line in server.lines if line["level"] == "error"]
