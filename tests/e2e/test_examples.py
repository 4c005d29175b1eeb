"""The Python in the README and in docs/ runs as it stands, but for the port."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from conftest import Server

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/protocols.md"]
PROTOCOLS = (ROOT / "docs/protocols.md").read_text()


def test_the_python_on_the_pages_runs(start: Callable[..., Server]) -> None:
    port = start("--model", "repvgg-tiny-cifar10").wait_until_serving().port
    for page in PAGES:
        for program in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
            assert "127.0.0.1:8000" in program
            program = program.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            assert "ship" in done.stdout


def test_the_variables_of_vertex_ai_are_followed(start: Callable[..., Server], jpeg_bytes: bytes) -> None:
    (command,) = re.findall(r"```sh\n(.*?)```", PROTOCOLS, re.DOTALL)
    environ = dict(assignment.split("=") for assignment in re.findall(r"AIP_\w+=\S+", command))
    url = start(environ=environ).wait_until_serving().url
    assert httpx.get(url + environ["AIP_HEALTH_ROUTE"]).status_code == 200
    body = json.loads(re.findall(r'`(\{"instances".*?)`', PROTOCOLS)[0])
    body["instances"][0]["b64"] = base64.b64encode(jpeg_bytes).decode()
    (prediction,) = httpx.post(url + environ["AIP_PREDICT_ROUTE"], json=body).json()["predictions"]
    promised = json.loads(re.findall(r'`(\{"predictions".*?)`', PROTOCOLS)[0])["predictions"][0]
    assert (prediction.keys(), len(prediction["predictions"])) == (promised.keys(), body["parameters"]["top_k"])
