"""Promises 1 and 2 of service.load.cost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from service.load.cost import CpuReading, core_hours_per_million, describe_cost, read_cpu
from service.load.wire import Address

METRICS = """# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 12.5
process_start_time_seconds 1.7e+09
repvgg_process_cpu_seconds_total 99
"""


@contextmanager
def answering(status: int, text: str) -> Iterator[Address]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Address("127.0.0.1", server.server_port)
        server.shutdown()
        thread.join()


def test_the_cpu_time_is_the_servers_own_count() -> None:
    with answering(200, METRICS) as address:
        assert read_cpu(address) == CpuReading(12.5, 1.7e9)


@pytest.mark.parametrize(
    ("status", "text"),
    [(404, "no such page"), (200, "process_cpu_seconds_total 1"), (200, METRICS.replace("12.5", "x"))],
)
def test_a_server_that_does_not_tell_gives_no_figure(status: int, text: str) -> None:
    with answering(status, text) as address:
        assert read_cpu(address) is None
    assert read_cpu(address) is None  # it has ended


@pytest.mark.parametrize(
    ("later", "expected"),
    [(CpuReading(15.0, 1.0), 2.5), (CpuReading(15.0, 2.0), None), (CpuReading(12.0, 1.0), None), (None, None)],
    ids=["later", "a new process", "another server", "gone"],
)
def test_readings_of_other_processes_are_not_compared(later: CpuReading | None, expected: float | None) -> None:
    assert CpuReading(12.5, 1.0).until(later) == expected


def test_core_hours_and_money() -> None:
    assert core_hours_per_million(0.0036) == pytest.approx(1.0)
    assert describe_cost(2.31, None) == "2.31 core hours per million images"
    assert describe_cost(2.0, 0.042) == "2 core hours per million images, 0.084 at 0.042 per core hour"
