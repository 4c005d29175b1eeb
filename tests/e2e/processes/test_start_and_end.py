"""How the process starts, fails to start, and exits."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import service

if TYPE_CHECKING:
    from conftest import Server

ROOT = Path(service.__file__).parents[1]
CLASSIFY = (
    b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n"
    b"Expect: 100-continue\r\n\r\n"
)


def request_in_flight(server: Server, image: bytes) -> socket.socket:
    """A connection whose request the application has begun to read: the server sent 100 Continue."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=120)
    connection.sendall(CLASSIFY % len(image))
    assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
    return connection


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65536):
        received += piece
    connection.close()
    return received


def refuses_connections(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=120).close()
    except ConnectionRefusedError:
        return True
    return False


def test_sigterm_answers_requests_in_flight_and_exits_with_0(
    start: Callable[..., Server], wait_until: Callable[..., None], jpeg_bytes: bytes
) -> None:
    server = start("--drain-seconds", 0).wait_until_serving()
    connections = [request_in_flight(server, jpeg_bytes) for _ in range(8)]
    server.signal(signal.SIGTERM)
    wait_until(lambda: refuses_connections(server))
    for connection in connections:
        connection.sendall(jpeg_bytes)
    replies = [read_all(connection) for connection in connections]
    assert [reply.split(b"\r\n")[0] for reply in replies] == [b"HTTP/1.1 200 OK"] * 8
    assert all(b'"predictions"' in reply and b"connection: close" in reply.lower() for reply in replies)
    assert server.wait() == (0, "")
    assert server.lines[-1]["msg"] == "stopped"


def measured_lags(client: httpx.Client) -> int:
    name = "repvgg_event_loop_lag_seconds_count "
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return int(float(line.removeprefix(name)))


def test_after_sigterm_readyz_fails_while_requests_are_answered_and_a_second_one_skips_the_drain(
    start: Callable[..., Server], wait_until: Callable[..., None], jpeg_bytes: bytes
) -> None:
    server = start("--drain-seconds", 3600).wait_until_serving()
    with httpx.Client(base_url=server.url, timeout=120) as client:
        server.signal(signal.SIGTERM)
        wait_until(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz").json()["code"] == "draining"
        assert client.get("/livez").status_code == 200
        lag_was_measured = measured_lags(client)
        wait_until(lambda: measured_lags(client) >= lag_was_measured + 2)  # the loop keeps running, twice a second
        headers = {"content-type": "image/jpeg"}
        reply = httpx.post(f"{server.url}/classify", content=jpeg_bytes, headers=headers, timeout=120)
        assert reply.status_code == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == (0, "")


def test_a_further_sigterm_forces_the_exit_and_the_log_names_what_was_lost(
    start: Callable[..., Server], wait_until: Callable[..., None], jpeg_bytes: bytes
) -> None:
    server = start("--drain-seconds", 3600).wait_until_serving()
    connections = [request_in_flight(server, jpeg_bytes) for _ in range(3)]
    server.signal(signal.SIGTERM)
    server.wait_for_line("SIGTERM: draining")
    server.signal(signal.SIGTERM)
    assert server.wait() == (1, "")
    assert server.lines[-1]["msg"] == "stopped by force (another SIGTERM): 3 requests were lost"
    assert server.lines[-1]["lost"] == 3
    for connection in connections:
        connection.close()


def test_a_client_that_reads_no_responses_cannot_delay_the_exit(start: Callable[..., Server]) -> None:
    server = start("--timeout-ms", 100, "--drain-seconds", 0).wait_until_serving()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    # Once the server stops reading because its responses are not read; a busy one may pause for a second, too.
    with contextlib.suppress(TimeoutError):
        while True:
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
    server.signal(signal.SIGTERM)
    assert server.wait() == (1, "")
    said = "stopped by force (requests in flight for more than 5.1 s): 1 requests were lost"
    assert server.lines[-1]["msg"] == said
    connection.close()


def test_ctrl_c_does_not_wait(start: Callable[..., Server]) -> None:
    server = start("--drain-seconds", 3600).wait_until_serving()
    server.signal(signal.SIGINT)
    assert server.wait() == (0, "")


def test_the_banner_is_one_line_with_all_facts(start: Callable[..., Server]) -> None:
    flags = ("--max-batch-size", 4, "--engine-threads", 2, "--decode-threads", 3, "--timeout-ms", 2500)
    server = start(*flags, environ={"REPVGG_API_KEYS": "secret,other"}).wait_until_serving()
    banner = server.lines[-1]
    assert banner["msg"] == f"serving tiny 1 with onnxruntime fp32 on {server.url}"
    facts = {
        **{"url": server.url, "model_name": "tiny", "model_version": "1", "model_engine": "onnxruntime"},
        **{"model_precision": "fp32", "classes": 10, "input_size": 32, "device": "CPUExecutionProvider"},
        **{"max_batch_size": 4, "engine_slots": 2, "engine_threads": 2, "decode_threads": 3, "workers": 1},
        **{"max_images_per_request": 64, "max_body_bytes": 32 << 20, "max_image_pixels": 50_000_000},
        **{"timeout_ms": 2500, "api_keys": 2},
    }
    assert banner.items() >= facts.items()
    assert banner["images_per_second"] > 0
    assert "secret" not in str(server.lines)


def test_the_banner_is_a_table_for_people(tiny_bundle: Path) -> None:
    program = [sys.executable, "-m", "service", "serve", "--model", str(tiny_bundle), "--port", "0"]
    flags = ["--engine", "onnxruntime", "--max-batch-size", "4", "--log-format", "console"]
    with subprocess.Popen([*program, *flags], cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        lines: list[str] = []
        for line in running.stdout:
            lines.append(line.partition(" server         ")[2])
            if lines[-1].startswith("  keys "):
                break
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=120)
    url = next(line.split()[-1] for line in lines if line.startswith("serving tiny 1 with onnxruntime fp32 on http://"))
    rows = dict(line.split(maxsplit=1) for line in lines if line.startswith("  "))
    assert list(rows) == ["page", "model", "engine", "batches", "threads", "limits", "keys"]
    assert rows["page"] == f"{url}/, its API at {url}/docs\n"
    assert rows["model"] == "10 classes, 32 x 32 pixels\n"
    assert rows["batches"].startswith("up to 4 images, ")
    assert rows["limits"] == "64 images, 32 MiB and 10 s per request, 50 megapixels per image\n"
    assert rows["keys"] == "not required\n"


def one_line(said: str, text: str) -> bool:
    return said in text and text.startswith("repvgg serve: ") and text.count("\n") == 1


def test_a_port_in_use_exits_with_69(start: Callable[..., Server], server: Server) -> None:
    code, err = start("--port", server.port).wait()
    assert code == 69
    assert one_line(f"port {server.port}: the port is in use", err)


def test_a_corrupt_bundle_exits_with_66(start: Callable[..., Server], tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corrupt"
    shutil.copytree(tiny_bundle, folder)
    (folder / "labels.txt").write_text("something else\n")
    code, err = start("--model", folder).wait()
    assert code == 66
    assert one_line(f"{folder / 'labels.txt'} is corrupt", err)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_corrupt_newest_version_is_passed_over_and_everybody_is_told(
    start: Callable[..., Server], write_version: Callable[..., Path], wait_until: Callable[..., None], workers: int
) -> None:
    store = write_version(1).parent
    (write_version(2) / "labels.txt").write_text("something else\n")
    flags = ("--model", store, "--workers", workers, "--drain-seconds", 0)
    server = start(*flags)
    told = server.wait_for_line("version 2 of tiny cannot serve, the older 1 is opened: ")
    assert told["level"] == "error"
    assert f"{store / '2' / 'labels.txt'} is corrupt" in told["msg"]
    for _ in range(workers):
        assert server.wait_until_serving().lines[-1]["model_version"] == "1"
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for _ in range(4):
            check = httpx.get(f"{server.url}/readyz?verbose", timeout=120).json()["checks"]["version"]
            assert check == "1, because newer ones cannot serve: 2; the log has the reasons"
            assert "\nrepvgg_older_bundle 1.0\n" in httpx.get(f"{server.url}/metrics", timeout=120).text
        assert client.post("/models/reload").status_code == 422
        shutil.rmtree(store / "2")
        write_version(2)
        assert client.post("/models/reload").json()["version"] == "2"
        wait_until(lambda: client.get("/readyz?verbose").json()["checks"]["version"] == "ok")
        wait_until(lambda: "\nrepvgg_older_bundle 0.0\n" in client.get("/metrics").text)
    server.signal(signal.SIGTERM)
    assert server.wait() == (0, "")


@pytest.mark.parametrize(("flags", "environ"), [(["--strict-version"], {}), ([], {"REPVGG_STRICT_VERSION": "1"})])
def test_a_start_that_is_strict_about_the_version_exits_with_66(
    start: Callable[..., Server], write_version: Callable[..., Path], flags: list[str], environ: dict[str, str]
) -> None:
    store = write_version(1).parent
    (write_version(2) / "tiny.onnx").write_bytes(b"x")
    code, err = start("--model", store, *flags, "--workers", 2, environ=environ).wait()
    assert code == 66
    assert one_line("tiny.onnx is corrupt", err)


def test_a_missing_bundle_exits_with_66(start: Callable[..., Server], tmp_path: Path) -> None:
    code, err = start("--model", tmp_path).wait()
    assert code == 66
    assert one_line(f"no model bundle at {tmp_path}", err)


def test_logits_that_differ_from_the_golden_ones_exit_with_70(start: Callable[..., Server], wrong_bundle: Path) -> None:
    code, err = start("--model", wrong_bundle).wait()
    assert code == 70
    assert one_line("off the golden logits", err)


def test_an_engine_that_is_not_installed_exits_with_69(start: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not installed')")
    code, err = start(environ={"PYTHONPATH": str(tmp_path)}).wait()
    assert code == 69
    assert one_line("pip install 'repvgg[onnx]'", err)


@pytest.mark.parametrize(
    ("flags", "environ", "said"),
    [
        (["--port", "http"], {}, "--port=http is invalid: it must be a whole number in 0..65535"),
        ([], {"REPVGG_TIMEOUT_MS": "-1"}, "REPVGG_TIMEOUT_MS=-1 is invalid"),
        ([], {"REPVGG_TIMEOUT": "1"}, "REPVGG_TIMEOUT is not a setting; did you mean REPVGG_TIMEOUT_MS?"),
    ],
)
def test_a_bad_configuration_exits_with_78(
    start: Callable[..., Server], flags: list[str], environ: dict[str, str], said: str
) -> None:
    code, err = start(*flags, environ=environ).wait()
    assert code == 78
    assert one_line(said, err)


def test_variables_injected_by_kubernetes_are_ignored_with_one_warning(start: Callable[..., Server]) -> None:
    injected = {"REPVGG_SERVICE_HOST": "10.0.0.1", "REPVGG_PORT": "tcp://10.0.0.1:80"}
    server = start(environ=injected).wait_until_serving()
    (warning,) = [line for line in server.lines if line["level"] == "warning"]
    assert all(name in warning["msg"] for name in injected)


STUCK = """
import sys, threading
from service.observe import logs
from service.runtime.listener import listen
from service.runtime.server import serve
from service.engines.runtimes.fake import FakeEngine
from service.settings import Settings

def stick(images):
    if images.any():  # warm-up images are black
        threading.Event().wait()

logs.configure("json", sys.stdout)
settings = Settings(model=sys.argv[1], timeout_ms=200, drain_seconds=0)
serve(settings, listen("127.0.0.1", 0), FakeEngine(10, 32, fail=stick))
"""


def test_a_stuck_engine_delays_nobody(tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    command = [sys.executable, "-c", STUCK, str(tiny_bundle)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        lines = (json.loads(line) for line in process.stdout)
        url = next(line["url"] for line in lines if line["msg"].startswith("serving "))
        reply = httpx.post(f"{url}/classify", content=jpeg_bytes, headers={"content-type": "image/jpeg"}, timeout=120)
        assert (reply.status_code, reply.json()["code"]) == (504, "deadline_exceeded")
        process.terminate()
        assert process.wait(120) == 1
        assert "still working" in list(lines)[-1]["msg"]
