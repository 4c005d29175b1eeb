"""The real `kserve` client from the package index, unchanged, against the real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from conftest import Server

CLIENT = Path(__file__).with_name("kserve_client.py")


@pytest.fixture(scope="session")
def kserve_python() -> Path:
    """An interpreter that has the client; `make test` sets it up."""
    folder = Path(__file__).parents[3] / ".venv-kserve"
    if not (folder / ".set-up").exists():
        pytest.skip("the KServe client is not here: python3 scripts/setup.py kserve installs it")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def images(draw_image: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{seed}.jpg" for seed in range(2)]
    for seed, path in enumerate(paths):
        path.write_bytes(draw_image(seed))
    return paths


@pytest.fixture(scope="module")
def said(kserve_python: Path, server: Server, images: list[Path]) -> dict[str, Any]:
    """What the client found."""
    command = [str(kserve_python), str(CLIENT), server.url, "tiny", *map(str, images)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def test_the_server_and_the_model_are_live_and_ready(said: dict[str, Any]) -> None:
    assert (said["live"], said["ready"], said["model_ready"], said["other_ready"]) == (True, True, True, False)


def test_the_metadata_is_the_protocol_s(said: dict[str, Any]) -> None:
    assert said["server"]["name"] == "repvgg"
    assert "binary_tensor_data" in said["server"]["extensions"]
    assert (said["model"]["name"], said["model"]["versions"]) == ("tiny", ["1"])
    assert [tensor["name"] for tensor in said["model"]["outputs"]] == ["label", "class_id", "score"]


@pytest.mark.parametrize("how", ["binary", "json"])
def test_inference_gives_what_classify_gives(
    said: dict[str, Any], http: httpx.Client, images: list[Path], how: str
) -> None:
    files = [("image", (path.name, path.read_bytes())) for path in images]
    results = http.post("/classify?top_k=3", files=files).json()["results"]
    for row, result in zip(said[how], results, strict=True):
        expected = [(one["label"], one["class_id"], pytest.approx(one["score"])) for one in result["predictions"]]
        assert [tuple(one) for one in row] == expected


def test_an_error_is_an_error_of_the_client(said: dict[str, Any]) -> None:
    assert said["error"] == 422
