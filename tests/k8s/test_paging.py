"""Whom the rules wake, given the scrapes of a real server: each of its scrapes counts as 15 s.

1. nobody is woken by rude clients, whatever they send;
2. a real outage wakes somebody within two minutes: an engine that hangs, and a server that is gone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import service

ROOT = Path(service.__file__).parents[1]
RULES = ROOT / "docker/prometheus/rules.yaml"
LIMIT_S = 120
STEP_S = 15
PER_MINUTE = 60 // STEP_S
JPEG = {"content-type": "image/jpeg"}
# Long enough for a busy machine; the server's deadline is twice as long.
OBJECTIVE_MS = 2000


@dataclass
class Scraped:
    """What Prometheus would have seen of a server, one value for each scrape."""

    url: str
    series: dict[str, list[str]] = field(default_factory=dict)
    scrapes: int = 0

    def scrape(self, requests: int = 0) -> None:
        """`requests`: how many must have been counted. Scrapes that follow each other this quickly may be answered with
        an older one, which is up to a second old."""
        give_up_at = time.monotonic() + LIMIT_S
        while True:
            text = httpx.get(f"{self.url}/metrics", timeout=LIMIT_S).text
            samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
            if sum(sample.value for sample in samples if sample.name == "repvgg_slo_requests_total") >= requests:
                break
            assert time.monotonic() < give_up_at, f"fewer than {requests} requests are counted"
            time.sleep(0.05)
        for sample in samples:
            if not sample.name.endswith(("_bucket", "_created")):
                self._add(sample.name, {"job": "repvgg", "instance": "a", **sample.labels}, f"{sample.value:.9f}")
        self._add("up", {"job": "repvgg", "instance": "a"}, "1")
        self.scrapes += 1

    def miss(self) -> None:
        """The server does not answer any more."""
        for values in self.series.values():
            values.append("stale")
        self.scrapes += 1

    def _add(self, name: str, labels: dict[str, str], value: str) -> None:
        shown = ",".join(f"{label}={json.dumps(text)}" for label, text in labels.items())
        values = self.series.setdefault(f"{name}{{{shown}}}", [])
        values += ["_"] * (self.scrapes - len(values)) + [value]

    @property
    def seconds(self) -> int:
        """The time of the last scrape."""
        return STEP_S * (self.scrapes - 1)


@dataclass(frozen=True)
class Pager:
    promtool: str
    folder: Path

    def assert_woken(self, scraped: Scraped, woken: dict[int, list[str]]) -> None:
        """`woken`: seconds -> the names of the alerts that wake somebody then."""
        expression = 'count by (alertname) (ALERTS{alertstate="firing",severity="critical"})'
        expected = {
            seconds: [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names]
            for seconds, names in woken.items()
        }
        test = {
            "interval": f"{STEP_S}s",
            "input_series": [{"series": name, "values": " ".join(values)} for name, values in scraped.series.items()],
            "promql_expr_test": [
                {"expr": expression, "eval_time": f"{seconds}s", "exp_samples": samples}
                for seconds, samples in expected.items()
            ],
        }
        file = self.folder / "paging.test.yaml"
        rules = {"rule_files": [str(RULES)], "evaluation_interval": f"{STEP_S}s", "tests": [test]}
        file.write_text(yaml.safe_dump(rules, width=10**6))
        done = subprocess.run([self.promtool, "test", "rules", file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def pager(need: Callable[[str, str], str], tmp_path: Path) -> Pager:
    return Pager(need("promtool", "Debian's package prometheus"), tmp_path)


@contextmanager
def serving(model: Path, *flags: object) -> Iterator[tuple[subprocess.Popen[str], Scraped]]:
    command = [sys.executable, "-m", "service", "serve", "--engine", "onnxruntime", "--model", model, "--port", 0]
    limits = ["--objective-ms", OBJECTIVE_MS, "--timeout-ms", 2 * OBJECTIVE_MS]
    words = [str(word) for word in (*command, *limits, *flags)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = map(json.loads, iter(process.stdout.readline, ""))
            yield process, Scraped(next(line["url"] for line in lines if line["msg"].startswith("serving ")))
        finally:
            process.kill()


def classify(url: str, content: bytes, **parameters: Any) -> int:
    return httpx.post(f"{url}/classify", content=content, headers=JPEG, params=parameters, timeout=LIMIT_S).status_code


def leave(url: str, head: bytes, body: bytes) -> None:
    """Send this and disconnect."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), LIMIT_S) as connection:
        connection.sendall(head + body)


def be_rude(url: str, image: bytes) -> None:
    assert classify(url, image, timeout_ms=1) in (503, 504)
    for _ in range(2):
        assert classify(url, b"no image") == 422
    files = [("f", ("a.jpg", image, "image/jpeg")), ("f", ("b.jpg", b"no image", "image/jpeg"))]
    assert httpx.post(f"{url}/classify", files=files, timeout=LIMIT_S).status_code == 200
    assert classify(url, image, top_k=0) == 422
    assert httpx.post(f"{url}/classify", content=image, timeout=LIMIT_S).status_code == 415
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(image)
    leave(url, head, image)
    leave(url, head, image[:100])
    leave(url, b"GET /nothing HTTP/9\r\n\r\n", b"")
    assert httpx.get(f"{url}/metrics", headers={"Accept": "application/openmetrics-text; version=abc"}).is_success
    assert httpx.post(f"{url}/v2/models/other/infer", content=b"{", timeout=LIMIT_S).status_code == 404


def test_nobody_is_woken_by_rude_clients(pager: Pager, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    with serving(tiny_bundle) as (_, scraped):
        scraped.scrape()
        for count in range(1, 4 * PER_MINUTE + 1):
            be_rude(scraped.url, jpeg_bytes)
            scraped.scrape(6 * count)  # those of a round that wait for their response
        pager.assert_woken(scraped, {seconds: [] for seconds in range(0, scraped.seconds + 1, 60)})


def children_of(process: subprocess.Popen[str]) -> list[int]:
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def test_an_outage_wakes_somebody_within_two_minutes(pager: Pager, tiny_bundle: Path, draw_image: Any) -> None:
    with serving(tiny_bundle, "--engine-python", sys.executable, "--single-flight", "off") as (process, scraped):
        images = [draw_image(seed) for seed in range(4)]
        scraped.scrape()
        for count in range(1, 3 * PER_MINUTE + 1):
            assert [classify(scraped.url, image) for image in images] == [200] * 4
            scraped.scrape(4 * count)
        hung_at = scraped.seconds
        engines = children_of(process)
        for engine in engines:
            os.kill(engine, signal.SIGSTOP)
        for failed in range(1, 2 * PER_MINUTE + 1):
            assert classify(scraped.url, images[0]) >= 500
            scraped.scrape(4 * count + failed)
        gone_at = scraped.seconds
        process.kill()
        for engine in engines:
            os.kill(engine, signal.SIGKILL)
        for _ in range(2 * PER_MINUTE):
            scraped.miss()
    woken = {hung_at: [], hung_at + 120: ["RepvggErrorBudgetBurn"]}
    pager.assert_woken(scraped, woken | {gone_at + 120: ["RepvggAbsent", "RepvggErrorBudgetBurn"]})
