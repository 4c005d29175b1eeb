"""An engine in its own process behind the real server: its failures stay contained."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from models.preprocess import preprocess
from models.scores.topk import softmax, top_k
from models.store import open_bundle
from service.engines.runtimes.onnxruntime import OnnxRuntimeEngine

if TYPE_CHECKING:
    from conftest import DrawImage, Server

MAX_BATCH = 4


def engine_pid(server: Server) -> int:
    """The process id of the server's only child."""
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    (pid,) = [int(pid) for task in tasks for pid in task.read_text().split()]
    return pid


class Load:
    """Clients that send requests in sequence until `stop`, and one that polls /readyz."""

    def __init__(self, url: str, image: bytes, clients: int) -> None:
        self.statuses: list[int] = []
        self.readiness: list[tuple[int, str]] = []
        self._stopped = threading.Event()
        self._url, self._image = url, image
        asking = [threading.Thread(target=self._ask) for _ in range(clients)]
        self._threads = [*asking, threading.Thread(target=self._watch)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as client:
            while not self._stopped.is_set():
                reply = client.post("/classify", content=self._image, headers={"content-type": "image/jpeg"})
                self.statuses.append(reply.status_code)

    def _watch(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as client:
            while not self._stopped.is_set():
                reply = client.get("/readyz")
                self.readiness.append((reply.status_code, reply.json().get("detail", "")))

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(120)


def test_a_killed_engine_costs_at_most_the_batch_in_flight(
    start: Callable[..., Server], wait_until: Callable[..., None], jpeg_bytes: bytes
) -> None:
    flags = ("--single-flight", "off", "--max-batch-size", MAX_BATCH)
    server = start("--engine-python", sys.executable, *flags).wait_until_serving()
    load = Load(server.url, jpeg_bytes, clients=8)
    try:
        wait_until(lambda: len(load.statuses) > 50 and len(load.readiness) > 5)
        assert set(load.statuses) == {200}
        assert {status for status, _ in load.readiness} == {200}
        killed = engine_pid(server)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: load.readiness[-1][0] == 503)
        assert "and is restarting" in load.readiness[-1][1]
        wait_until(lambda: load.readiness[-1][0] == 200)
        assert engine_pid(server) != killed
        ready_again = len(load.statuses)
        wait_until(lambda: len(load.statuses) > ready_again + 50)
    finally:
        load.stop()
    failed = [status for status in load.statuses if status != 200]
    assert len(failed) <= MAX_BATCH
    assert all(status >= 500 for status in failed)
    # Requests that were already sent when it became ready again may have been answered after that.
    assert set(load.statuses[ready_again + 8 :]) == {200}
    server.signal(signal.SIGTERM)
    assert httpx.get(f"{server.url}/livez").status_code == 200  # it drains
    server.signal(signal.SIGTERM)
    assert server.wait() == (0, "")
    (died,) = [line for line in server.lines if line["msg"] == "the engine's process ended (SIGKILL)"]
    assert died["level"] == "error"


def test_a_signal_to_the_process_group_keeps_the_engine_alive_until_all_requests_are_answered(
    start: Callable[..., Server], wait_until: Callable[..., None], jpeg_bytes: bytes
) -> None:
    server = start("--engine-python", sys.executable, "--drain-seconds", 3600).wait_until_serving()
    engine = engine_pid(server)
    for pid in (engine, server.process.pid):
        os.kill(pid, signal.SIGTERM)
    with httpx.Client(base_url=server.url, timeout=120) as client:
        wait_until(lambda: client.get("/readyz").status_code == 503)
        headers = {"content-type": "image/jpeg"}
        reply = httpx.post(f"{server.url}/classify", content=jpeg_bytes, headers=headers, timeout=120)
        assert reply.status_code == 200
        assert engine_pid(server) == engine
    for pid in (engine, server.process.pid):
        os.kill(pid, signal.SIGINT)
    assert server.wait() == (0, "")
    assert not Path(f"/proc/{engine}").exists()


@pytest.mark.parametrize(
    ("python", "code", "said"), [("/no/python", 78, "/no/python cannot be run"), ("/bin/true", 69, "it said nothing")]
)
def test_an_unusable_interpreter_ends_the_start(
    start: Callable[..., Server], python: str, code: int, said: str
) -> None:
    found, err = start("--engine-python", python).wait()
    assert found == code
    assert said in err


def test_mindspore_lite_agrees_with_onnx_runtime(
    start: Callable[..., Server], lite_bundle: Path, lite_python: Path, draw_image: DrawImage
) -> None:
    flags = ("--model", lite_bundle, "--engine", "mindspore-lite", "--engine-python", lite_python)
    server = start(*flags).wait_until_serving()
    bundle = open_bundle(lite_bundle)
    engine = OnnxRuntimeEngine.open(bundle, "fp32", threads=1)
    drawings = [draw_image(seed) for seed in range(5)]
    files = [("images", (f"{number}.jpg", drawing)) for number, drawing in enumerate(drawings)]
    answer: Any = httpx.post(f"{server.url}/classify?top_k=10", files=files, timeout=120).json()
    assert answer["model"] == {"name": "tiny", "version": "2", "engine": "mindspore-lite", "precision": "fp32"}
    for drawing, result in zip(drawings, answer["results"], strict=True):
        (logits,) = engine.infer(preprocess(drawing, bundle.manifest.preprocess)[None])
        expected = {prediction.label: prediction.score for prediction in top_k(softmax(logits), bundle.labels, 10)}
        found = {prediction["label"]: prediction["score"] for prediction in result["predictions"]}
        assert found == pytest.approx(expected, abs=1e-4)
