"""Two workers store images in one folder, over a socket."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from conftest import Server

MEBIBYTE = 1 << 20
LIMIT_S = 120.0


def test_two_workers_store_images_in_one_folder(
    start: Callable[..., Server], tmp_path: Path, large_photo: bytes, wait_until: Callable[..., None]
) -> None:
    folder = tmp_path / "kept"
    flags = ["--keep", folder, "--keep-if", "score < 1", "--keep-bytes", MEBIBYTE, "--drain-seconds", 0]
    server = start("--workers", 2, *flags)
    notice = server.wait_for_line("IMAGES ARE STORED")
    assert (notice["level"], str(folder) in notice["msg"]) == ("warning", True)
    server.wait_until_serving()
    server.wait_for_line("serving ")

    def classify(count: int) -> None:
        for _ in range(count):  # on new connections, so that any worker may answer
            headers = {"content-type": "image/jpeg", "x-request-id": "../../mine"}
            assert httpx.post(f"{server.url}/classify", content=large_photo, headers=headers).status_code == 200

    def metric(name: str) -> float:
        lines = httpx.get(f"{server.url}/metrics", timeout=LIMIT_S).text.splitlines()
        return float(next(line for line in lines if line.startswith(name)).rpartition(" ")[2])

    count = 10 + MEBIBYTE // len(large_photo)
    classify(count)
    wait_until(lambda: metric("repvgg_kept_images_total") == count)
    assert metric("repvgg_kept_deleted_total") > 5
    assert 0 < metric("repvgg_kept_bytes") <= MEBIBYTE
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MEBIBYTE
    named = {json.loads(line)["data"]["file"] for line in (folder / "tasks.jsonl").read_text().splitlines()}
    assert named == {path.relative_to(folder).as_posix() for path in files if path.suffix == ".jpg"}
    assert metric("repvgg_kept_images_total") - metric("repvgg_kept_deleted_total") == len(named)
    assert not [path for path in tmp_path.rglob("*") if folder not in (path, *path.parents)]

    classify(4)  # what waits at the end is written
    server.signal(signal.SIGTERM)
    assert server.wait() == (0, "")
    lines = (folder / "tasks.jsonl").read_text().splitlines()
    assert all((folder / json.loads(line)["data"]["file"]).is_file() for line in lines)
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.jpg")} == {0o600}
