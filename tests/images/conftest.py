"""Real containers: podman builds and runs the images, without a daemon or a registry.

`make test-images` runs these tests; without podman they are skipped with that reason. Images and volumes are named
`...:test` and `test-...` in podman's usual storage, so that the next run reuses their layers.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
BASE = "localhost/debian-python:bookworm"  # as scripts/base_image.sh names it
LIMIT_S = 120.0
BUILD_LIMIT_S = 1500.0
HARDENED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")

# Lets podman 4.3 run on most machines: runc, no systemd, the host's network, limits below the machine's.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=8192:8192"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""


class Podman:
    def __init__(self, environ: dict[str, str]) -> None:
        self._environ = environ

    def __call__(self, *arguments: object, stdin: Path | None = None, limit_s: float = LIMIT_S) -> str:
        """stdout of one podman command, which must succeed."""
        done = self.run(*arguments, stdin=stdin, limit_s=limit_s)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    def run(
        self, *arguments: object, stdin: Path | None = None, limit_s: float = LIMIT_S
    ) -> subprocess.CompletedProcess[str]:
        with (stdin or Path(os.devnull)).open("rb") as file:
            return subprocess.run(
                ["podman", *map(str, arguments)],
                cwd=ROOT,
                env=self._environ,
                stdin=file,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )

    def build(self, dockerfile: str, tag: str, **arguments: str) -> str:
        """Build with this machine's network and pip.conf -> the tag."""
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        if Path("/etc/pip.conf").is_file():
            options.append("--secret=id=pip.conf,src=/etc/pip.conf")
        if shutil.which("debootstrap"):
            if self.run("image", "exists", BASE).returncode:
                make_base = ["bash", "scripts/base_image.sh"]
                subprocess.run(make_base, cwd=ROOT, env=self._environ, capture_output=True, check=True)
            options.append(f"--build-arg=BASE_IMAGE={BASE}")
        # Only the `docker` format supports HEALTHCHECK.
        options += ["--format=docker", "--network=host", "--volume=/etc/ssl/certs:/etc/ssl/certs:ro"]
        self("build", *options, f"--file=docker/{dockerfile}", f"--tag={tag}", ".", limit_s=BUILD_LIMIT_S)
        return tag

    def inspect(self, name: str, kind: str = "container") -> dict[str, Any]:
        (found,) = json.loads(self("inspect", f"--type={kind}", name))
        return found


class Container:
    """A container that runs in the background on a free port of this machine."""

    def __init__(self, podman: Podman, image: str, options: tuple[object, ...]) -> None:
        self.podman = podman
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        port = self.url.rpartition(":")[2]
        self.name = podman("run", "--detach", f"--env=REPVGG_PORT={port}", *options, image).strip()

    def state(self) -> dict[str, Any]:
        state = self.podman.inspect(self.name)["State"]
        assert isinstance(state, dict)
        return state

    def log(self) -> str:
        done = self.podman.run("logs", self.name)
        return done.stdout + done.stderr

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.podman.run("exec", self.name, *command)

    def healthy(self) -> bool:
        """The current result of HEALTHCHECK, which runs inside the container and needs no network."""
        return self.podman.run("healthcheck", "run", self.name).returncode == 0

    def wait_until_healthy(self) -> Container:
        give_up_at = time.monotonic() + LIMIT_S
        while not self.healthy():
            assert self.state()["Running"], self.log()
            assert time.monotonic() < give_up_at, self.log()
            time.sleep(0.1)
        return self

    def wait(self) -> int:
        """Waits for the end -> exit code."""
        return int(self.podman("wait", self.name))

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=LIMIT_S)

    def classify(self, image: Path) -> str:
        """The label of the best prediction."""
        headers = {"content-type": "image/jpeg"}
        reply = httpx.post(f"{self.url}/classify", content=image.read_bytes(), headers=headers, timeout=LIMIT_S)
        assert reply.status_code == 200, reply.text
        label = reply.json()["results"][0]["predictions"][0]["label"]
        assert isinstance(label, str)
        return label


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    if "IMAGE_TESTS" not in os.environ:
        pytest.skip("`make test-images` builds and runs the images, which takes minutes")
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed: scripts/ci_packages.sh installs it on Debian")
    conf = tmp_path_factory.mktemp("podman") / "containers.conf"
    conf.write_text(CONTAINERS_CONF)
    engine = Podman({"CONTAINERS_CONF": str(conf)} | os.environ)
    if (told := engine.run("info")).returncode:
        pytest.skip(f"podman does not run here: {told.stderr.strip()}")
    return engine


@pytest.fixture(scope="session")
def service_image(podman: Podman) -> str:
    return podman.build("service.Dockerfile", "repvgg-service-cpu:test", REVISION="0123abc")


@pytest.fixture(scope="session")
def training_image(podman: Podman) -> str:
    return podman.build("training.Dockerfile", "repvgg-training-cpu:test", REVISION="0123abc")


@pytest.fixture
def start(podman: Podman, service_image: str) -> Iterator[Callable[..., Container]]:
    """`start(*options of podman run)` -> a hardened container of the service."""
    started: list[Container] = []

    def run(*options: object) -> Container:
        started.append(Container(podman, service_image, (*HARDENED, *options)))
        return started[-1]

    yield run
    for container in started:
        podman("rm", "--force", "--time=0", container.name)
