from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from service.load.generator import Plan, Run, Sample, run_load
from service.load.wire import Address, PreparedRequest


class Small(ThreadingHTTPServer):
    """Answers one request at a time, each after `seconds`; counts how many it had at once."""

    def __init__(self, seconds: float, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.seconds, self.status = seconds, status
        self.retry_after = 0
        self.connections: set[object] = set()
        self.bodies: list[bytes] = []
        self.at_once = self.most_at_once = 0
        self.turn, self.counting = threading.Lock(), threading.Lock()

    def count(self, change: int) -> None:
        with self.counting:
            self.at_once += change
            self.most_at_once = max(self.most_at_once, self.at_once)


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Small

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.count(+1)
        with self.server.turn:
            time.sleep(self.server.seconds)
            self.server.bodies.append(body)
            self.server.connections.add(self.client_address)
        self.server.count(-1)
        answer = json.dumps({"code": "overloaded"} if self.server.status == 503 else {}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Server-Timing", "total;dur=1.5")
        self.send_header("Retry-After", str(self.server.retry_after))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def small(seconds: float = 0.0, status: int = 200, retry_after: int = 0) -> Iterator[tuple[Small, Address]]:
    with Small(seconds, status) as server:
        server.retry_after = retry_after
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server, Address("127.0.0.1", server.server_address[1])
        server.shutdown()
        thread.join()


def load(address: Address, plan: Plan, tick: Callable[[Run, float], None] | None = None) -> Run:
    requests = [PreparedRequest(address, "/", [], body) for body in (b"one", b"two", b"three")]
    return run_load(address, requests, plan, tick) if tick else run_load(address, requests, plan)


def test_slow_answers_do_not_delay_an_open_loop() -> None:
    with small(seconds=0.02) as (server, address):
        found = load(address, Plan(0.5, 30.0, rate=100.0))
    assert len(found.samples) == len(server.bodies) > 30
    assert server.most_at_once > 5
    assert all(sample.status == 200 for sample in found.samples)
    assert max(sample.latency_s for sample in found.samples) > 5 * 0.02
    assert all(sample.due_s < 0.5 for sample in found.samples)


def test_two_open_loops_have_the_same_arrivals() -> None:
    with small() as (_, address):
        first, second = (load(address, Plan(0.2, 30.0, rate=100.0)) for _ in range(2))
    dues = [sorted(sample.due_s for sample in found.samples) for found in (first, second)]
    assert dues[0] == pytest.approx(dues[1])
    gaps = [later - earlier for earlier, later in zip(dues[0], dues[0][1:], strict=False)]
    assert max(gaps) > 3 * min(gaps), "arrivals at random times, not at regular ones"


def test_a_closed_loop_has_as_many_requests_in_flight_as_clients() -> None:
    with small(seconds=0.01) as (server, address):
        found = load(address, Plan(0.4, 30.0, clients=3))
    assert server.most_at_once == 3
    assert sum(sample.late_s for sample in found.samples) < sum(sample.latency_s for sample in found.samples)
    assert {b"one", b"two", b"three"} == set(server.bodies)


def test_latency_starts_when_a_request_was_due_and_lateness_is_recorded() -> None:
    def stall(*_: object) -> None:
        time.sleep(0.3)  # nothing can be sent

    with small() as (_, address):
        found = load(address, Plan(1.2, 30.0, rate=50.0), stall)
    latest = max(found.samples, key=lambda sample: sample.late_s)
    assert latest.late_s > 0.1
    assert latest.latency_s >= latest.late_s


def test_refusals_and_failures_have_samples_too() -> None:
    with small(status=503) as (_, address):
        found = load(address, Plan(0.1, 30.0))
    assert {(sample.status, sample.code, sample.timing) for sample in found.samples} == {
        (503, "overloaded", "total;dur=1.5")
    }
    gone = load(address, Plan(0.1, 30.0))
    assert {(sample.status, sample.code) for sample in gone.samples} == {(0, "connection refused")}


def test_a_rude_client_asks_again_at_once_and_a_polite_one_waits_as_it_is_told() -> None:
    with small(status=503, retry_after=60) as (server, address):
        rude = load(address, Plan(0.3, 30.0, clients=2, rude=True, polite=1))
    by_kind = [[sample for sample in rude.samples if sample.polite == polite] for polite in (False, True)]
    assert len(by_kind[1]) == 1
    assert len(by_kind[0]) > 2
    assert len(server.connections) == 2, "each client has its own"


def test_a_request_without_an_answer_is_abandoned() -> None:
    with small(seconds=0.3) as (_, address):
        found = load(address, Plan(0.05, 0.1, clients=2))
    assert [sample.code for sample in found.samples] == ["no answer in time"] * 2


def test_ctrl_c_stops_the_load_and_keeps_the_samples_so_far() -> None:
    with small(seconds=0.01) as (_, address):
        found = load(address, Plan(600.0, 600.0, clients=2), lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert found.stopped
    assert found.samples
    assert all(isinstance(sample, Sample) and sample.status == 200 for sample in found.samples)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
