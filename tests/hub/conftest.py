from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hub import pull as pulling
from hub.progress import Progress
from models.store import Bundle
from tests.hub.hub_server import Repo, Server
from tests.hub.repositories import Arrays, random_weights, timm_config, timm_repository

A0 = "timm/repvgg_a0.rvgg_in1k"


@pytest.fixture(scope="session")
def a0_weights() -> Arrays:
    return random_weights("RepVGG-A0", 1000)


@pytest.fixture(scope="session")
def a0_files(a0_weights: Arrays) -> dict[str, bytes]:
    return timm_repository(a0_weights, timm_config())


@pytest.fixture
def server(a0_files: dict[str, bytes]) -> Iterator[Server]:
    hub = Server()
    hub.repos[A0] = Repo(dict(a0_files))
    with hub.running():
        yield hub


@pytest.fixture
def environ(server: Server, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf")}


Pull = Callable[..., Bundle]


@pytest.fixture
def said() -> io.StringIO:
    """What was told to whoever waits."""
    return io.StringIO()


@pytest.fixture
def pull(environ: Mapping[str, str], tmp_path: Path, said: io.StringIO) -> Pull:
    """`pull("hf://...", name=..., ...)` -> the bundle, in a store of the test; further attempts follow at once."""

    def run(source: str, **options: Any) -> Bundle:
        request = pulling.Request(source, **{"store": tmp_path / "store", **options})
        return pulling.pull(request, environ, Progress(said), pauses_s=(0, 0, 0))

    return run
