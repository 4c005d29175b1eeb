"""Replacing the served model under load, over a real socket."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from models import golden
from models.scores.topk import softmax, top_k
from models.store import open_bundle

if TYPE_CHECKING:
    from conftest import Server

PNG = {"content-type": "image/png"}
Expected = dict[str, float]


def truth_of(folder: Path) -> Expected:
    """The scores that follow from the training framework's logits for the first golden image."""
    bundle = open_bundle(folder)
    _, logits = golden.load(bundle)
    return {prediction.label: prediction.score for prediction in top_k(softmax(logits[0]), bundle.labels, 10)}


class Load:
    """Clients that send requests in sequence on persistent connections until `stop`; each response is compared with the
    expected scores of the version that it names."""

    def __init__(self, url: str, image: bytes, truths: dict[str, Expected], clients: int) -> None:
        self.versions: list[str] = []
        self.failures: list[str] = []
        self._url, self._image, self._truths = url, image, truths
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as client:
            while not self._stopped.is_set():
                try:
                    reply = client.post("/classify?top_k=10", content=self._image, headers=PNG)
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                else:
                    self._check(reply)
                    if reply.headers.get("connection") == "close":
                        return  # a load balancer would go elsewhere

    def _check(self, reply: httpx.Response) -> None:
        if reply.status_code != 200:
            self.failures.append(reply.text)
            return
        answer: Any = reply.json()
        scores = {prediction["label"]: prediction["score"] for prediction in answer["results"][0]["predictions"]}
        version = answer["model"]["version"]
        if scores != pytest.approx(self._truths[version], abs=1e-4):
            self.failures.append(f"{version} answered {scores}")
        self.versions.append(version)

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(120)

    def stop(self) -> None:
        self._stopped.set()
        self.wait()


@pytest.fixture
def store(write_version: Callable[..., Path]) -> Path:
    """A folder with versions 1 and 2 of a bundle."""
    write_version(1)
    return write_version(2).parent


@pytest.fixture
def load(store: Path) -> Callable[..., Load]:
    image = (store / "1" / "golden" / "0.png").read_bytes()
    truths = {version: truth_of(store / version) for version in ("1", "2")}
    return lambda server, clients=4: Load(server.url, image, truths, clients)


def test_no_request_fails_while_models_are_swapped(
    start: Callable[..., Server], wait_until: Callable[..., None], store: Path, load: Callable[..., Load]
) -> None:
    server = start("--model", store / "1").wait_until_serving()
    clients = load(server)
    swaps = ["2", "1"] * 4
    try:
        for version in swaps:
            reply = httpx.post(f"{server.url}/models/reload?version={version}", timeout=120)
            assert (reply.status_code, reply.json()["version"]) == (200, version)
            seen = len(clients.versions)
            wait_until(lambda seen=seen: len(clients.versions) > seen + 20)
            before = [answered for answered in clients.versions[seen:] if answered != version]
            assert len(before) <= 4  # each client may have had one request under way
    finally:
        clients.stop()
    assert clients.failures == []
    for _ in swaps[1:]:
        server.wait_for_line("tiny ")
    server.signal(signal.SIGINT)
    assert server.wait() == (0, "")
    assert not [line for line in server.lines if line["level"] in ("warning", "error")]


def test_sighup_loads_the_newest_version_and_a_bad_one_keeps_the_old_one(
    start: Callable[..., Server], store: Path, write_version: Callable[..., Path], load: Callable[..., Load]
) -> None:
    server = start("--model", store).wait_until_serving()
    clients = load(server)
    try:
        bad = write_version(3, wrong=True)
        server.signal(signal.SIGHUP)
        refused = server.wait_for_line(f"{store} cannot serve, tiny 2 keeps serving: ")
        assert f"off the golden logits of {bad}" in refused["msg"]
        (bad / "manifest.json").unlink()
        (store / "2" / "manifest.json").rename(store / "2" / "hidden")
        server.signal(signal.SIGHUP)
        server.wait_for_line("tiny 1 serves, in place of tiny 2")
        server.wait_for_line("tiny 2 is closed")
    finally:
        clients.stop()
    assert clients.failures == []
    assert set(clients.versions) <= {"1", "2"}


def test_no_request_fails_when_the_server_stops_under_load(
    start: Callable[..., Server], wait_until: Callable[..., None], store: Path, load: Callable[..., Load]
) -> None:
    server = start("--model", store, "--drain-seconds", 1).wait_until_serving()
    clients = load(server, clients=8)
    wait_until(lambda: len(clients.versions) > 50)
    server.signal(signal.SIGTERM)
    clients.wait()  # each client was sent elsewhere
    assert clients.failures == []
    assert server.wait() == (0, "")
