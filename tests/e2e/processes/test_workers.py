"""Several processes on one port behave like one service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import service

if TYPE_CHECKING:
    from conftest import Server

ROOT = Path(service.__file__).parents[1]
WORKERS = 2
JPEG = {"content-type": "image/jpeg"}
COUNT = 'repvgg_request_duration_seconds_count{code="200",route="/classify"}'


def wait_until_all_serve(server: Server) -> Server:
    server.wait_until_serving()
    for _ in range(WORKERS - 1):
        server.wait_for_line("serving ")
    return server


def workers_of(supervisor: subprocess.Popen[str]) -> list[int]:
    """The process ids of the workers."""
    tasks = Path(f"/proc/{supervisor.pid}/task").glob("*/children")
    children = sorted(int(pid) for task in tasks for pid in task.read_text().split())
    return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture
def crew(start: Callable[..., Server], write_version: Callable[..., Path]) -> Server:
    """Two workers that serve the newest of several versions."""
    store = write_version(1).parent
    return wait_until_all_serve(start("--model", store, "--workers", WORKERS, "--drain-seconds", 0))


def ask(server: Server, image: bytes) -> dict[str, Any]:
    """On a new connection, so that any worker may answer."""
    reply = httpx.post(f"{server.url}/classify", content=image, headers=JPEG, timeout=120)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def metric(server: Server, sample: str) -> float:
    lines = httpx.get(f"{server.url}/metrics", timeout=120).text.splitlines()
    (line,) = [line for line in lines if line.startswith(f"{sample} ")]
    return float(line.rpartition(" ")[2])


def test_metrics_cover_all_workers_and_never_decrease_when_one_dies(
    crew: Server, wait_until: Callable[..., None], jpeg_bytes: bytes
) -> None:
    for _ in range(20):
        ask(crew, jpeg_bytes)
    assert [metric(crew, COUNT) for _ in range(5)] == [20] * 5
    assert metric(crew, 'repvgg_engine_slots{state="idle"}') == WORKERS
    wanted = {"Accept": "application/openmetrics-text;version=1.0.0"}
    text = httpx.get(f"{crew.url}/metrics", headers=wanted, timeout=120).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(families["repvgg_model_info"].samples) == len(families["repvgg_build"].samples) == 1
    assert any(sample.exemplar for sample in families["repvgg_request_duration_seconds"].samples)

    killed, other = workers_of(crew.process)
    os.kill(killed, signal.SIGKILL)
    died = crew.wait_for_line("worker ")
    assert "ended (exit code -9); a replacement starts in 0.1 s" in died["msg"]
    assert metric(crew, COUNT) == 20  # the other worker answers meanwhile
    again = crew.wait_for_line("serving ")
    assert f"worker {again['worker']} ended" in died["msg"]
    wait_until(lambda: "2 of 2 serve" in httpx.get(f"{crew.url}/readyz?verbose", timeout=120).text)
    assert other in workers_of(crew.process)
    for _ in range(10):
        ask(crew, jpeg_bytes)
    assert [metric(crew, COUNT) for _ in range(5)] == [30] * 5
    crew.signal(signal.SIGTERM)
    assert crew.wait() == (0, "")
    answered = {line["worker"] for line in crew.lines if line["msg"] == "POST /classify 200"}
    assert answered <= {1, 2}


def test_a_reload_reaches_all_workers_and_a_bad_one_reaches_none(
    crew: Server, write_version: Callable[..., Path], jpeg_bytes: bytes
) -> None:
    def versions() -> set[str]:
        return {ask(crew, jpeg_bytes)["model"]["version"] for _ in range(16)}

    write_version(2)
    reply = httpx.post(f"{crew.url}/models/reload", timeout=120)
    assert (reply.status_code, reply.json()["version"], reply.json()["workers"]) == (200, "2", WORKERS)
    assert versions() == {"2"}

    bad = write_version(3, wrong=True)
    reply = httpx.post(f"{crew.url}/models/reload", timeout=120)
    assert (reply.status_code, reply.json()["code"]) == (422, "model_rejected")
    assert "off the golden logits of tiny/3" in reply.json()["detail"]
    assert versions() == {"2"}

    (bad / "manifest.json").unlink()
    assert httpx.post(f"{crew.url}/models/reload?version=1", timeout=120).json()["version"] == "1"
    assert versions() == {"1"}
    os.kill(workers_of(crew.process)[0], signal.SIGKILL)
    crew.wait_for_line("worker ")
    assert crew.wait_for_line("serving ")["model_version"] == "1"  # the version that was named, not the newest
    crew.signal(signal.SIGHUP)
    for _ in range(WORKERS):
        crew.wait_for_line("tiny 2 serves, in place of tiny 1")
    assert versions() == {"2"}
    crew.signal(signal.SIGINT)
    assert crew.wait() == (0, "")


def test_a_signal_to_the_whole_group_counts_once(crew: Server) -> None:
    pids = [crew.process.pid, *workers_of(crew.process)]
    for number in (signal.SIGINT, signal.SIGTERM):
        for pid in pids[1:]:
            os.kill(pid, number)
    assert httpx.get(f"{crew.url}/readyz", timeout=120).status_code == 200
    for pid in pids:
        os.kill(pid, signal.SIGINT)
    assert crew.wait() == (0, "")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids[1:])


def test_workers_exit_when_the_supervisor_is_killed(crew: Server, wait_until: Callable[..., None]) -> None:
    pids = workers_of(crew.process)
    crew.signal(signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in pids))


IMPATIENT = """
import sys
from service.cli import main
from service.runtime.messages import lifeline
lifeline.LOOK_EVERY_S, lifeline.STUCK_AFTER_LOOKS = 0.2, 20
sys.exit(main(["serve", "--engine", "onnxruntime", "--workers", "2", "--port", "0", *sys.argv[1:]]))
"""


def test_a_stuck_worker_is_replaced(tiny_bundle: Path) -> None:
    command = [sys.executable, "-c", IMPATIENT, "--model", str(tiny_bundle), "--drain-seconds", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        lines = (json.loads(line) for line in process.stdout)
        serving = (line for line in lines if line["msg"].startswith("serving "))
        assert {next(serving)["worker"], next(serving)["worker"]} == {1, 2}
        os.kill(workers_of(process)[0], signal.SIGSTOP)
        said = next(line["msg"] for line in lines if line["level"] == "error")
        assert said == f"worker {next(serving)['worker']} is killed: it has not answered for 4 s"
        process.terminate()
        assert process.wait(120) == 0


def test_a_flood_of_scrapes_gets_no_healthy_worker_killed(tiny_bundle: Path) -> None:
    command = [sys.executable, "-c", IMPATIENT, "--model", str(tiny_bundle), "--drain-seconds", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        lines = (json.loads(line) for line in process.stdout)
        serving = (line for line in lines if line["msg"].startswith("serving "))
        (_, url) = (next(serving), next(serving)["url"])
        pids = workers_of(process)
        stop_at = time.monotonic() + 8  # twice as long as a stuck one lives here

        def scrape() -> int:
            answered = 0
            with httpx.Client(base_url=url, timeout=120) as client:
                while time.monotonic() < stop_at:
                    answered += client.get("/metrics").status_code == 200
                    client.get("/readyz?verbose")
            return answered

        with ThreadPoolExecutor(8) as scrapers:
            assert min(scraper.result() for scraper in [scrapers.submit(scrape) for _ in range(8)]) > 0
        assert workers_of(process) == pids
        process.terminate()
        assert process.wait(120) == 0


def test_a_worker_that_cannot_start_again_is_retried_and_the_others_serve_on(
    crew: Server, write_version: Callable[..., Path], wait_until: Callable[..., None], jpeg_bytes: bytes
) -> None:
    def workers() -> str:
        reply = httpx.get(f"{crew.url}/readyz?verbose", timeout=120)
        assert reply.status_code == 200
        return str(reply.json()["checks"]["workers"])

    labels = write_version(2).parent / "1" / "labels.txt"
    content = labels.read_bytes()
    labels.write_bytes(b"broken")
    killed, healthy = workers_of(crew.process)
    os.kill(killed, signal.SIGKILL)
    for _ in range(3):
        wait_until(lambda: "ended (exit code 66)" in crew.wait_for_line("worker ")["msg"])
    assert workers().startswith("1 of 2 serve; worker ")
    assert "exit code 66" in workers()
    assert metric(crew, "repvgg_workers_serving") == 1
    assert metric(crew, "repvgg_workers_wanted") == WORKERS
    assert metric(crew, "repvgg_worker_restarts_total") >= 3
    assert ask(crew, jpeg_bytes)["model"]["version"] == "1"
    labels.write_bytes(content)
    crew.wait_for_line("serving ")
    wait_until(lambda: workers() == "2 of 2 serve")
    assert healthy in workers_of(crew.process)
    crew.signal(signal.SIGTERM)
    assert crew.wait()[0] == 0


def test_the_last_worker_that_cannot_start_again_ends_the_service_with_its_exit_code(
    crew: Server, write_version: Callable[..., Path]
) -> None:
    (write_version(2).parent / "1" / "labels.txt").write_bytes(b"broken")
    for pid in workers_of(crew.process):
        os.kill(pid, signal.SIGKILL)
    code, err = crew.wait()
    assert code == 66
    assert "labels.txt is corrupt" in err


def test_a_worker_that_cannot_start_ends_the_service_with_its_exit_code(
    start: Callable[..., Server], wrong_bundle: Path
) -> None:
    code, err = start("--model", wrong_bundle, "--workers", WORKERS).wait()
    assert code == 70
    assert "off the golden logits" in err
    assert err.count("\n") == 1
