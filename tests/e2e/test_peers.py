"""The comparison with other servers runs and reports what it promises; its figures are not tested."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.peers.__main__ import Effort, expected, main, measure
from benchmarks.peers.peers import PEERS, ROOT, Running, Server, Unusable, best, ours, requirements
from benchmarks.peers.report import Turn, as_markdown, summary, tables
from models import golden
from models.store import open_bundle
from service.engines.loading import load_engine
from service.load.figures import summarise
from service.load.generator import Plan, Run, Sample, ask_once
from service.load.wire import Address, Reply

FASTAPI = [sys.executable, "-m", "benchmarks.peers.servers.with_fastapi"]  # the only peer whose packages are installed
SETTINGS = {"WORKERS": 1, "THREADS": 1}


def test_it_compares_in_closed_and_open_loop(tiny_bundle, tmp_path, draw_image, capsys):
    (tmp_path / "photo.jpg").write_bytes(draw_image(0, "JPEG"))
    few = ("--rounds", "1", "--seconds", "0.3", "--clients", "2", "--shares", "1.5", "--peers")
    arguments = [str(tmp_path), "--model", str(tiny_bundle), "--out", str(tmp_path), "--ours", "onnxruntime/fp32", *few]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "| server | same answers | 2: images/s | 2: p50 ms | 2: CPU ms | 2: p99 ms | best / in-process |" in out
    assert "| 1.5x: in time / capacity |" in out
    assert out.count("| ours onnxruntime/fp32 | ") == 2
    assert "| ours onnxruntime/fp32 | " in (tmp_path / "servers.md").read_text()
    assert ">best: images/s, more is better</text>" in (tmp_path / "servers.svg").read_text()
    (turn,) = map(json.loads, (tmp_path / "turns.jsonl").read_text().splitlines())
    assert turn["same_answers"] == 1
    assert turn["closed"]["2"]["answers"] > 0
    assert 0 < turn["closed"]["2"]["cpu_ms_per_image"] < 10_000


def test_a_folder_without_photos_is_said_before_anything_is_installed(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "absent"), "--out", str(tmp_path / "out")])
    assert "absent: there are no photos in this folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_peers_answers_must_equal_ours(tiny_bundle, tmp_path, draw_image):
    photos = [draw_image(seed, "JPEG") for seed in range(3)]
    truths = expected(open_bundle(str(tiny_bundle)), photos)
    turn, effort = Turn("fastapi", 0, 1.0, 0.0), Effort(0.2, [1], [], 1000)
    with Running(Server("fastapi", FASTAPI, SETTINGS), tiny_bundle, tmp_path / "log") as running:
        measure(turn, running, photos, truths, effort)
        with pytest.raises(Unusable, match="its answers are wrong"):
            measure(turn, running, photos, [(9 - truth, score) for truth, score in truths], effort)
    assert turn.closed[1].answers > 0
    assert turn.closed[1].failures == {}


@pytest.mark.parametrize("part", ["", "images"])
def test_both_kinds_of_request_bodies_contain_the_photo(server, tiny_bundle, draw_image, part):
    photo = draw_image(0, "JPEG")
    address = Address.of(server.url)
    request = Server("ours", [], {}, part).prepare(address, photo, 10_000)
    (truth,) = expected(open_bundle(str(tiny_bundle)), [photo])
    assert best(ask_once(address, request, 30.0)) == pytest.approx(truth)


def test_triton_gets_the_photo_as_a_tensor_and_its_answer_is_read(draw_image):
    photo = draw_image(0, "JPEG")
    sent = PEERS["triton"].prepare(Address("127.0.0.1", 1), photo, 1000).content
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v2/models/peer/infer HTTP/1.1\r\n")
    (length,) = re.findall(rb"Inference-Header-Content-Length: (\d+)", head)
    described, tensor = json.loads(body[: int(length)]), body[int(length) :]
    (declared,) = described["inputs"]
    assert (declared["name"], declared["datatype"]) == ("image", "BYTES")
    assert declared["parameters"]["binary_data_size"] == len(tensor)
    assert (int.from_bytes(tensor[:4], "little"), tensor[4:]) == (len(photo), photo)
    outputs = [{"name": "score", "data": [0.5, 0.2]}, {"name": "class_id", "data": [7, 3]}]
    assert best(Reply(200, b"", json.dumps({"outputs": outputs}).encode())) == (7, 0.5)


def test_the_benchmarks_bundle_has_int8_if_it_gets_photos(tmp_path, draw_image):
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(4):
        (photos / f"{seed}.jpg").write_bytes(draw_image(seed, "JPEG"))
    out = tmp_path / "store" / "random" / "1"
    command = [sys.executable, "-m", "benchmarks.random_bundle", "--size", "32", "--classes", "7", "--out", out]
    subprocess.run([*command, "--calibration", photos], cwd=ROOT, check=True, timeout=300)
    bundle = open_bundle(str(out))
    assert [artifact.precision for artifact in bundle.manifest.artifacts] == ["fp32", "int8"]
    tensors, logits = golden.load(bundle)
    found = load_engine("onnxruntime", bundle, "int8", threads=1).infer(tensors)
    assert found.shape == (len(logits), 7)
    assert 0 < np.abs(found - logits).max() < 3 * np.std(logits)


def test_the_cpu_time_of_a_process_in_a_session_of_its_own_counts(tmp_path):
    work = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    start = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], start_new_session=True)"
    server = Server("other", [sys.executable, "-c", f"{start}; import time; time.sleep(60)", work], {})
    with Running(server, ROOT, tmp_path / "log") as running:
        give_up_at = time.monotonic() + 30.0
        while running.cpu_s < 0.5 and time.monotonic() < give_up_at:
            time.sleep(0.05)
        assert running.cpu_s >= 0.5


def test_our_own_server_may_get_a_batch_size():
    server = ours("ncnn/fp32/8", ROOT)
    assert server.engine == "ncnn/fp32"
    assert server.command[-5:] == ["--precision", "fp32", "--max-batch-size", "8", "--port"]
    assert "--max-batch-size" not in ours("ncnn/fp32", ROOT).command


def test_a_server_that_does_not_start_is_reported(tiny_bundle, tmp_path):
    server = Server("fastapi", FASTAPI, {})  # without its settings
    with Running(server, tiny_bundle, tmp_path / "log") as running, pytest.raises(Unusable, match="ended with 1"):
        running.wait(server.prepare(running.address, b"", 1000))
    assert "KeyError" in (tmp_path / "log").read_text()


def test_ratios_are_computed_per_round_and_then_their_median():
    def turn(server, number, limit, answers):
        samples = [Sample(0.0, 0.0, 0.5, 200, None, "")] * answers
        facts = {"url": "", "model": None, "deadline_ms": 1000, "images": 1, "warm_up_s": 0.0}
        figures = summarise(Run(samples, elapsed_s=1.0), Plan(1.0, 1.0), **facts)
        return Turn(server, number, limit, 1.0, {1: figures}, {3.0: figures})

    rounds = [turn("a", 0, 200, 100), turn("b", 0, 200, 50), turn("b", 1, 100, 10), turn("a", 1, 100, 40)]
    lines = list(tables([*rounds, turn("a", 2, 100, 60), turn("b", 2, 100, 60)], "a"))
    rows = {line.split(" | ")[0]: line.strip("| ").split(" | ") for line in lines[3:6]}
    assert rows["| a"][-2:] == ["0.5", "1"]
    assert rows["| b"][-2:] == ["0.25", "0.5"]


def test_the_summary_compares_each_round_with_its_best_peer():
    def turn(server, number, answers):
        samples = [Sample(0.0, 0.0, 0.5, 200, None, "")] * answers
        facts = {"url": "", "model": None, "deadline_ms": 1000, "images": 1, "warm_up_s": 0.0, "server_cpu_s": 0.36}
        return Turn(server, number, 200, 1.0, {1: summarise(Run(samples, elapsed_s=1.0), Plan(1.0, 1.0), **facts)})

    turns = [
        turn("ours a/fp32", 0, 100),
        turn("b", 0, 50),
        turn("c", 0, 80),
        turn("ours a/fp32", 1, 100),
        turn("b", 1, 100),
    ]
    ours, b, c = summary(turns)
    assert ours == {
        **{"server": "ours a/fp32", "1 client: p50 ms": "500", "best: images/s": "100", "CPU ms an image": "3.6"},
        **{"core hours a million": "1", "/ in-process": "0.5", "/ best peer": "1.125"},
    }
    assert (b["/ best peer"], c["/ best peer"]) == ("0.8125", "1")
    assert summary(turns[:1])[0].get("/ best peer") is None
    assert list(as_markdown(summary([turns[0], turns[1]])))[2].startswith(
        "| ours a/fp32 | 500 | 100 | 3.6 | 1 | 0.5 | 2 |"
    )


def test_the_servers_inherit_no_limits_of_the_training_framework():
    program = "import os, benchmarks.peers.__main__; print(os.environ.get('DNNL_MAX_CPU_ISA'))"
    environ = {name: value for name, value in os.environ.items() if name != "DNNL_MAX_CPU_ISA"}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    assert ended.stdout == "None\n"


@pytest.mark.parametrize("name", list(PEERS))
def test_every_requirement_of_a_peer_is_pinned(name):
    assert requirements(name)
    assert all("==" in requirement for requirement in requirements(name))
