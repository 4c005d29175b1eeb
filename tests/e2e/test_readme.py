"""What the README tells people to type works, to the letter but for the port, the data and where results go."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
COMMANDS = [
    line.split(" #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for line in block.splitlines()
]
CURL = [command for command in COMMANDS if command.startswith("curl ")]
OFFLINE = [command for command in COMMANDS if re.match(r"\.venv/bin/repvgg (classify|inspect)", command)]
TRAINING = [command for command in COMMANDS if "-m training." in command]
MAKE = [command for command in COMMANDS if command.startswith("make ")]
SERVE_MINE = [command for command in COMMANDS if command.startswith(".venv/bin/repvgg serve")]


def shell(command: str) -> str:
    """Run as a person would, with this environment's programs -> stdout."""
    command = command.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_command_of_the_readme_is_tried_by_a_test():
    assert sorted(COMMANDS) == sorted(CURL + OFFLINE + TRAINING + MAKE + SERVE_MINE)
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{command.split()[1]}:" in makefile for command in MAKE)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", CURL)
def test_curl(start, command):
    url = start("--model", "repvgg-tiny-cifar10").wait_until_serving().url
    out = shell(command.replace("http://127.0.0.1:8000", url).replace("curl ", "curl --fail-with-body --silent ", 1))
    if "/classify" in command:
        answer = json.loads(out)
        for result in answer["results"]:
            assert result["predictions"], result
    else:
        assert "ready" in out or "repvgg_request_duration_seconds_bucket" in out


@pytest.mark.parametrize("command", OFFLINE)
def test_offline(command):
    assert "ship" in shell(command)


def test_training_your_own(tmp_path, start):
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    rng = np.random.default_rng(0)
    for split, count in {"train": 13, "val": 2}.items():
        for class_id, name in enumerate(classes):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(rng.normal(25 * class_id, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg")
    places = {"DATA": tmp_path / "data", "runs/": f"{tmp_path}/runs/", "models/store/mine": tmp_path / "mine"}
    assert [command.split()[2] for command in TRAINING] == ["training.train", "training.eval", "training.export"]
    for command in TRAINING:
        for text, place in places.items():
            command = command.replace(text, str(place))
        out = shell(f"{command} --save_dir {tmp_path}/runs --epochs 2")
    assert f"{tmp_path}/mine/1: top-1" in out
    (serve,) = SERVE_MINE
    assert serve.endswith("--model mine")
    assert start("--model", tmp_path / "mine" / "1").wait_until_serving().url
