"""`repvgg bench` against the real server."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image

from service.cli import main

ROOT = Path(__file__).parents[2]
QUICK = ("--duration", "0.6", "--warm-up", "0.2")


@pytest.fixture
def photos(tmp_path, draw_image):
    for seed in range(3):
        (tmp_path / f"{seed}.jpg").write_bytes(draw_image(seed, "JPEG"))
    return tmp_path


class Terminal(StringIO):
    def isatty(self):
        return True


def bench(*arguments, environ=None, err=None):
    out, err = StringIO(), err or StringIO()
    code = main(["bench", *map(str, arguments)], environ or {}, out, err)
    return code, out.getvalue(), err.getvalue()


def test_a_closed_loop_reports_latency_and_the_servers_stages(server, photos):
    code, out, _ = bench("--url", server.url, *QUICK, "--concurrency", 2, "--core-hour-price", 0.05, photos)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"{server.url} (tiny/1, onnxruntime fp32): closed loop, 2 clients, 0.6 s, deadline 10000 ms"
    assert re.fullmatch(r"[\d.]+ images/s; (\d+) requests, \1 answered, \1 \(100.0%\) within the deadline", lines[1])
    assert [line.split()[0] for line in lines[2:-2]] == [
        *("milliseconds", "latency", "read", "decode", "queue", "infer", "total", "outside")
    ]
    assert lines[-2].endswith("images in a batch")
    cost = r"[\d.]+ core hours per million images, [\d.e-]+ at 0.05 per core hour"
    assert re.fullmatch(rf"[\d.]+ ms of the server's CPU per image: {cost}", lines[-1])


def test_on_a_terminal_it_shows_progress(server, photos):
    _, out, err = bench("--url", server.url, "--duration", 0.8, "--warm-up", 0, photos, err=Terminal())
    assert re.search(r"1/1 s \|.*\| \d+ images/s, p50 [\d.]+ ms, 0 refused or failed", err)
    assert "refused" not in out


def test_an_open_loop_writes_json_and_files(server, photos):
    saved, picture = photos / "run.json", photos / "latency.png"
    flags = (*QUICK, "--rate", 60, "--timeout-ms", 5000, "--json", "--save", saved, "--histogram", picture)
    code, out, _ = bench("--url", f"{server.url}/classify", *flags, photos / "0.jpg", photos / "1.jpg")
    figures = json.loads(out)
    assert code == 0
    assert figures["conditions"] == {
        **{"rate": 60.0, "clients": None, "deadline_ms": 5000, "images": 2},
        **{"rude": False, "polite": 0},
    }
    assert figures["answers"] == figures["requests"] > 10
    assert figures["generator"]["late_ms"]["p50"] >= 0
    assert 0 < figures["cpu_ms_per_image"] < 1000
    assert figures == json.loads(saved.read_text())
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
    assert bench("--url", server.url, *QUICK, "--histogram", photos / "latency.html", photos)[0] == 0
    assert (photos / "latency.html").read_text().startswith("<!DOCTYPE html>")


def test_two_runs_are_compared_by_ratio(server, photos):
    for name, clients in (("a", 1), ("b", 2)):
        bench("--url", server.url, *QUICK, "--concurrency", clients, "--save", photos / name, photos / "0.jpg")
    code, out, err = bench("--compare", photos / "a", photos / "b")
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()[3:]] == [
        *("images/s", "in time/s", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "max ms", "CPU ms", "refused", "failed")
    ]
    assert "warning: the two runs differ in clients: 1 and 2\n" in err
    rows = json.loads(bench("--compare", photos / "a", photos / "b", "--json")[1])
    assert rows["images/s"]["ratio"] == pytest.approx(rows["images/s"]["b"] / rows["images/s"]["a"], rel=1e-3)
    assert rows["failed"] == {"a": 0, "b": 0, "ratio": None}


def test_the_deadline_is_sent_and_rejections_are_counted(server, photos):
    code, out, _ = bench("--url", server.url, *QUICK, "--timeout-ms", 1, "--json", photos)
    figures = json.loads(out)
    assert code == (0 if figures["answers"] else 1)
    assert set(figures["refusals"]) <= {"deadline_exceeded", "overloaded"}
    assert sum(refusal["count"] for refusal in figures["refusals"].values()) + figures["answers"] == figures["requests"]
    assert figures["failures"] == {}


def test_an_api_key_comes_from_the_environment(start, photos):
    url = start(environ={"REPVGG_API_KEYS": "wrong,secret"}).wait_until_serving().url
    code, _, err = bench("--url", url, *QUICK, photos)
    assert code == 78
    assert "send a key" in err
    assert err.endswith("; set REPVGG_API_KEYS\n")
    assert bench("--url", url, *QUICK, photos, environ={"REPVGG_API_KEYS": "secret"})[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--url", "here"], 2, "--url: here is not a URL such as http://127.0.0.1:8000"),
        (["--url", "http://127.0.0.1:1"], 69, "no server answers at http://127.0.0.1:1: connection refused"),
        (["--url", "SERVER/elsewhere"], 2, "answers 404 not_found: there is nothing at this path"),
        (["--url", "SERVER", "PHOTOS/notes.txt"], 2, "notes.txt: not a readable image"),
        (["--url", "SERVER", "PHOTOS/none.jpg"], 2, "there is no file or folder"),
        (["--url", "SERVER", "--histogram", "a.pdf"], 2, "--histogram a.pdf: the name must end in .png or .html"),
        (["--url", "SERVER", "--save", "none/a"], 2, "--save: there is no folder none"),
        (["--url", "SERVER", "--rate", "1", "--rude"], 2, "--rude and --polite are for a closed loop"),
        (["--url", "SERVER", "--polite", "2"], 2, "--polite 2 is more than --concurrency 1"),
        (["--compare", "none", "none"], 2, "--compare none cannot be read"),
    ],
)
def test_errors_are_reported_before_any_load(server, photos, arguments, code, said):
    (photos / "notes.txt").write_text("no image")
    places = {"SERVER": server.url, "PHOTOS": str(photos)}
    words = [re.sub("SERVER|PHOTOS", lambda found: places[found[0]], word) for word in arguments]
    ended = bench(*words, *[photos / "0.jpg"] * ("PHOTOS" not in "".join(arguments)))
    assert (ended[0], ended[1]) == (code, "")
    assert said in ended[2]
    assert ended[2].count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--url", "http://a", "--compare", "a", "b"],
        ["--url", "http://a", "--rate", "0"],
        ["--url", "http://a", "--rate", "inf"],
        ["--url", "http://a", "--rate", "1", "--concurrency", "1"],
        ["--url", "http://a", "--concurrency", "0"],
        ["--url", "http://a", "--duration", "soon"],
        ["--url", "http://a", "--warm-up", "-1"],
    ],
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        bench(*arguments, "a.jpg")
    assert ended.value.code == 2


def test_ctrl_c_prints_the_results_so_far(server, http, photos, wait_until):
    def answered():
        return float(re.search(r'repvgg_images_total\{format="jpeg"\} (.+)', http.get("/metrics").text)[1])

    command = [sys.executable, "-m", "service", "bench", "--url", server.url, "--duration", "600", "--warm-up", "0"]
    before = answered()
    with subprocess.Popen(
        [*command, photos], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: answered() > before + 5)  # the first request is the check before the load
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert out.splitlines()[0].endswith(", stopped early")
    assert int(re.search(r"(\d+) answered", out)[1]) > 0


def test_a_histogram_without_matplotlib_is_rejected_before_any_load(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = bench("--url", "http://127.0.0.1:1", "--histogram", photos / "a.png", photos)
    assert (code, out) == (2, "")
    assert err == "repvgg bench: charts need matplotlib: pip install 'repvgg[charts]'\n"


def test_rude_and_polite_clients_have_figures_of_their_own(server, photos):
    flags = ("--concurrency", 3, "--rude", "--polite", 1, "--json")
    code, out, _ = bench("--url", server.url, *QUICK, *flags, photos / "0.jpg")
    figures = json.loads(out)
    assert code == 0
    assert {name: group["clients"] for name, group in figures["groups"].items()} == {"rude": 2, "polite": 1}
    assert sum(group["requests"] for group in figures["groups"].values()) == figures["requests"]
    assert sum(group["answers_in_time"] for group in figures["groups"].values()) == figures["answers_in_time"]
    code, out, _ = bench("--url", server.url, *QUICK, *flags[:-1], photos / "0.jpg")
    assert "closed loop, 3 rude clients, 1 of them polite" in out
    assert "\n2 rude: " in out
    assert "\n1 polite: " in out
