"""Rendered manifests, and two real services with two versions under load, scraped by a real Prometheus as the pods
repvgg-0 and repvgg-1."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml

from models.manifest import Confidence
from models.store import open_bundle
from models.versions import write_version
from tests.cluster import ROOT, Documents, kustomize

LIMIT_S = 120.0
SCRAPE_S = 1
# Between two rounds of a client: several fall between two scrapes, and the services, which run during all tests of this
# folder, leave the cores to the others.
LOAD_PAUSE_S = 0.3


def need(program: str, package: str) -> str:
    """The path of a program; skips the test if it is missing."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is absent; it comes with {package}")
    return found


@pytest.fixture(scope="session", name="need")
def need_fixture() -> Callable[[str, str], str]:
    return need


@pytest.fixture(scope="session")
def render() -> Callable[[Path | str], Documents]:
    """`render("overlays/cpu")` -> the documents that `kubectl kustomize` renders from this folder of k8s/."""
    return lambda folder: kustomize(ROOT / "k8s" / folder)


@contextmanager
def running(*command: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended when the block is left."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("REPVGG_")}
    with subprocess.Popen([str(word) for word in command], cwd=ROOT, env=environ, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@dataclass(frozen=True)
class Prometheus:
    """`rate_interval`: Grafana's value for $__rate_interval, at least four scrapes."""

    url: str
    rate_interval: str = f"{4 * SCRAPE_S}s"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query, without those that are NaN."""
        reply = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=LIMIT_S).json()
        assert reply["status"] == "success", (expression, reply)
        return [series for series in reply["data"]["result"] if series["value"][1] != "NaN"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until(condition: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up_at, "timed out"
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=LIMIT_S).is_success
    except httpx.ConnectError:
        return False


def doubting(bundle: Path, folder: Path) -> Path:
    """The same version of the bundle, with a threshold and quantiles, in a store of its own."""
    opened = open_bundle(bundle)
    figures: dict[str, Any] = {"accuracy": 0.9, "answered": 0.6, "kept": 0.8, "quantiles": {0.9: 0.6}}
    fitted = Confidence(fitted_at="2026-11-29T12:00:00Z", images=1000, precision="fp32", threshold=0.2, **figures)
    folder = folder / opened.manifest.name / opened.manifest.version
    return write_version(opened, folder, confidence=fitted).folder


@contextmanager
def service_under_load(model: Path, bodies: list[bytes]) -> Iterator[str]:
    """The URL of a service under constant load; its clients say that each image is a cat."""
    flags = ["--engine=onnxruntime", f"--model={model}", "--port=0", "--drain-seconds=0"]
    flags += ["--feedback=1000", f"--keep={model.parent / 'kept'}", "--keep-if=all", "--keep-bytes=1048576"]
    with running(sys.executable, "-m", "service", "serve", *flags, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = (json.loads(line) for line in process.stdout)
        url = next(line["url"] for line in lines if line["msg"].startswith("serving "))
        over = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=url, timeout=LIMIT_S) as client:
                while not over.wait(LOAD_PAUSE_S):
                    for body in bodies:
                        headers = {"content-type": "image/jpeg"}
                        answer = client.post("/classify?coverage=0.9", content=body, headers=headers).json()
                        client.post("/feedback", json={"request_id": answer["request_id"], "label": "cat"})

        client = threading.Thread(target=ask)
        client.start()
        reader = threading.Thread(target=list, args=(lines,))  # otherwise the pipe fills and the service blocks
        reader.start()
        try:
            yield url
        finally:
            over.set()
            client.join(LIMIT_S)
            process.terminate()
            reader.join(LIMIT_S)


@pytest.fixture(scope="package")
def service_urls(
    tiny_bundle: Path, fast_bundle: Path, draw_image: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[str]]:
    """Two pods with two versions, as during a rollout; valid images of several formats, and some invalid ones."""
    bodies = [*(draw_image(seed, name) for seed in range(3) for name in ("JPEG", "PNG", "WEBP")), b"no image"]
    models = [doubting(bundle, tmp_path_factory.mktemp("store")) for bundle in (tiny_bundle, fast_bundle)]
    with service_under_load(models[0], bodies) as old, service_under_load(models[1], bodies) as new:
        yield [old, new]


@pytest.fixture(scope="package")
def exposed(service_urls: list[str]) -> set[str]:
    """The names of all samples in a live /metrics response."""
    lines = httpx.get(f"{service_urls[0]}/metrics").text.splitlines()
    return {line.partition("{")[0].partition(" ")[0] for line in lines if not line.startswith("#")}


@pytest.fixture(scope="package")
def prometheus(service_urls: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes the services and evaluates our rules every second; has enough samples for every rate."""
    program = need("prometheus", "Debian's package prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    targets = [
        {"targets": [url.removeprefix("http://")], "labels": {"namespace": "repvgg", "pod": f"repvgg-{number}"}}
        for number, url in enumerate(service_urls)
    ]
    settings = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "docker/prometheus/rules.yaml")],
        "scrape_configs": [{"job_name": "repvgg", "static_configs": targets}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    server = Prometheus(f"http://127.0.0.1:{free_port()}")
    arguments = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={server.url.removeprefix('http://')}",
    ]
    with running(program, *arguments, stderr=subprocess.DEVNULL):
        wait_until(lambda: answers(f"{server.url}/-/ready"))
        wait_until(lambda: len(server.query("count_over_time(repvgg_model_info[1m]) > 2")) == len(service_urls))
        wait_until(lambda: server.query("count_over_time(job:repvgg_requests_slow:ratio_rate5m[1m]) > 2"))
        yield server


@pytest.fixture(scope="session")
def metrics_in() -> Callable[[str], set[str]]:
    """The metrics that a PromQL expression reads. Fails on invalid PromQL."""

    def names_in(expression: str) -> set[str]:
        names: set[str] = set()

        def note(node: promql_parser.Expr) -> None:
            if isinstance(node, promql_parser.VectorSelector):
                names.add(node.name)

        promql_parser.walk(promql_parser.parse(expression), note)
        return names

    return names_in


@pytest.fixture(scope="package")
def known(exposed: set[str]) -> set[str]:
    """What a query may read: the service's samples, our recorded series, and Prometheus's own `up`."""
    groups = yaml.safe_load((ROOT / "docker/prometheus/rules.yaml").read_text())["groups"]
    return exposed | {rule["record"] for group in groups for rule in group["rules"] if "record" in rule} | {"up"}
