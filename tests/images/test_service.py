"""The service image, built and run: read-only, without privileges or network, within its quota, until it stops."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from models.store import find_bundle

if TYPE_CHECKING:
    from conftest import Container, Podman

ROOT = Path(__file__).parents[2]
BUS = ROOT / "models" / "samples" / "school_bus.jpg"
SHIPPED = find_bundle("repvgg-small-tinyimagenet")
SBOM = ROOT / "scripts" / "sbom.py"
MEGABYTE = 1_000_000
# The first test builds the image.
pytestmark = pytest.mark.timeout(1200)
# A POST from inside the container: without a network it cannot be reached otherwise.
ASK_INSIDE = """
import os, sys, urllib.request
url = f"http://127.0.0.1:{os.environ['REPVGG_PORT']}/classify"
request = urllib.request.Request(url, sys.stdin.buffer.read(), {"content-type": "image/jpeg"})
print(urllib.request.urlopen(request).read().decode())
"""


def test_the_image_is_small_and_labelled(podman: Podman, service_image: str) -> None:
    image = podman.inspect(service_image, "image")
    config = image["Config"]
    assert image["Size"] < 350 * MEGABYTE
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["repvgg"]
    assert config["Cmd"] == ["serve"]
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert image["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert "ORT_DISABLE_TELEMETRY=1" in config["Env"]
    assert config["Labels"]["org.opencontainers.image.revision"] == "0123abc"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_it_classifies_read_only_without_capabilities_as_user_1000(start: Callable[..., Container]) -> None:
    container = start("--cpus=1", "--memory=1g").wait_until_healthy()
    assert container.classify(BUS) == "school bus"
    assert container.get("/readyz").json() == {"status": "ready"}
    assert container.run("id", "-u").stdout.strip() == "1000"
    status = container.run("cat", "/proc/1/status").stdout
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert container.run("touch", "/opt/repvgg/mark").returncode != 0
    assert container.run("python", "-c", "from service.machine.limits import *; print(usable_cpus())").stdout == "1\n"


def test_it_serves_with_winograds_algorithm(start: Callable[..., Container]) -> None:
    container = start("--env=REPVGG_ENGINE=ncnn", "--env=REPVGG_PRECISION=fp32").wait_until_healthy()
    assert container.classify(BUS) == "school bus"
    assert container.get("/models").json()["engine"] == "ncnn"


def test_sigterm_drains_and_the_container_exits_with_0(start: Callable[..., Container]) -> None:
    container = start("--env=REPVGG_DRAIN_SECONDS=3600").wait_until_healthy()
    container.podman("kill", f"--signal={signal.SIGTERM}", container.name)
    while container.get("/readyz").status_code == 200:
        pass
    assert container.get("/readyz").json()["code"] == "draining"
    assert container.classify(BUS) == "school bus"
    assert not container.healthy()
    container.podman("kill", f"--signal={signal.SIGTERM}", container.name)
    assert container.wait() == 0
    assert "draining" in container.log()


def test_it_works_without_any_network(start: Callable[..., Container]) -> None:
    container = start("--network=none").wait_until_healthy()
    answer = container.podman("exec", "--interactive", container.name, "python", "-c", ASK_INSIDE, stdin=BUS)
    assert json.loads(answer)["results"][0]["predictions"][0]["label"] == "school bus"
    assert container.run("repvgg", "doctor", "--port", "0").returncode == 0


def volume(folder: Path) -> tuple[str, str]:
    return f"--volume={folder}:/models:ro", "--env=REPVGG_MODEL=/models/mine/1"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder to mount, with the shipped bundle as mine/1."""
    shutil.copytree(SHIPPED, tmp_path / "mine" / "1")
    tmp_path.chmod(0o755)  # pytest lets only the owner enter
    return tmp_path


def test_a_bundle_on_a_read_only_volume_is_served(start: Callable[..., Container], models: Path) -> None:
    assert start(*volume(models)).wait_until_healthy().classify(BUS) == "school bus"


def test_a_missing_or_corrupt_bundle_is_exit_code_66_and_one_clear_line(
    start: Callable[..., Container], models: Path
) -> None:
    network = models / "mine" / "1" / "model.onnx"
    network.write_bytes(network.read_bytes()[:-1] + b"\0")
    corrupt = start(*volume(models))
    assert corrupt.wait() == 66
    assert "/models/mine/1/model.onnx is corrupt: its sha256 is" in corrupt.log().splitlines()[-1]
    assert '"serving ' not in corrupt.log()
    missing = start(*volume(models), "--env=REPVGG_MODEL=/models/gone/1")
    assert missing.wait() == 66
    assert "no model bundle at /models/gone/1" in missing.log().splitlines()[-1]


def test_a_memory_limit_that_is_too_low_is_logged_before_the_kernel_acts(start: Callable[..., Container]) -> None:
    container = start("--memory=256m", "--cpus=1").wait_until_healthy()
    warning = json.loads(container.log().splitlines()[0])
    assert warning["level"] == "warning"
    assert warning["msg"].startswith(
        "the memory limit is 256 MiB, but decoding the largest images on 1 thread takes up to"
    )
    assert container.classify(BUS) == "school bus"


def test_the_bill_of_materials_lists_the_pinned_and_the_debian_packages(podman: Podman, service_image: str) -> None:
    run = ("run", "--rm", "--interactive", "--network=none", "--entrypoint=python", service_image, "-")
    listed = {(one["name"], one["version"]) for one in json.loads(podman(*run, stdin=SBOM))["components"]}
    pins = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements" / "serve.lock").read_text(), re.MULTILINE)
    assert {name for name, _ in listed} >= {"onnxruntime", "pillow", "repvgg", "libc6"}
    python = {(name, version) for name, version in listed if name in dict(pins)}
    assert python <= set(pins)
    # ncnn's downloader wants these; see decision 0015.
    assert not {name for name, _ in listed} & {"requests", "portalocker"}
