"""`--keep`: what a service that stores images says of it, and which it stores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.cli.serve import storage_notice
from service.errors import ConfigError
from service.settings import Settings, load_settings

if TYPE_CHECKING:
    from starlette.testclient import TestClient

PNG = {"content-type": "image/png"}


def test_nothing_is_stored_and_nothing_said_by_default(client: TestClient) -> None:
    assert client.get("/models").json()["keeps_images"] is None
    assert "stored_images" not in client.get("/readyz?verbose").json()["checks"]
    assert storage_notice(Settings()) == ""


def test_a_service_that_stores_images_says_so(serve: Callable[..., TestClient], tmp_path: Path) -> None:
    settings = {"keep": str(tmp_path / "kept"), "keep_if": "score < 0.5"}
    client = serve(**settings)
    assert client.get("/models").json()["keeps_images"] == "score < 0.5"
    checks = client.get("/readyz?verbose").json()["checks"]
    assert checks["stored_images"] == "score < 0.5"
    assert str(tmp_path) not in json.dumps(checks)  # anybody may read it
    notice = storage_notice(Settings(**settings))
    assert notice.startswith("IMAGES ARE STORED")
    assert "'score < 0.5'" in notice
    assert str(tmp_path / "kept") in notice


def test_images_are_stored_by_their_answers_once_these_are_given(
    serve: Callable[..., TestClient], tmp_path: Path, png_bytes: bytes, wait_until: Callable[..., None]
) -> None:
    client = serve(keep=str(tmp_path), keep_if="all")
    answer = client.post("/classify?top_k=2", content=png_bytes, headers=PNG).json()
    wait_until((tmp_path / "tasks.jsonl").exists)
    (line,) = (tmp_path / "tasks.jsonl").read_text().splitlines()
    task = json.loads(line)["data"]
    assert (task["request_id"], task["index"]) == (answer["request_id"], 0)
    best = answer["results"][0]["predictions"]
    assert [one["label"] for one in task["labels"]] == [one["label"] for one in best]
    assert (tmp_path / best[0]["label"] / Path(task["file"]).name).read_bytes() == png_bytes


def test_a_client_never_notices_that_images_cannot_be_stored(
    serve: Callable[..., TestClient], tmp_path: Path, png_bytes: bytes, wait_until: Callable[..., None]
) -> None:
    (tmp_path / "file").touch()
    client = serve(keep=str(tmp_path / "file"), keep_if="all")
    assert client.post("/classify", content=png_bytes, headers=PNG).status_code == 200
    wait_until(lambda: 'repvgg_kept_dropped_total{reason="failed"} 1.0' in client.get("/metrics").text)


@pytest.mark.parametrize("text", ["unsure", "score < 50"])
def test_what_is_no_condition_is_an_error_of_the_configuration(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^REPVGG_KEEP_IF={text} is invalid: it must be all, confident, not conf"):
        load_settings({}, {"REPVGG_KEEP_IF": text})
