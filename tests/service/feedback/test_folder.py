from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import stat
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest

from models.preprocess import images_in
from service.feedback.folder import Kept, KeptFolder, TooLarge, file_name, folder_name

JPEG = b"\xff\xd8" + b"x" * 3000
LARGE = 1 << 30
NAME = "20261129T184205123456Z-r-0.jpg"


def kept(image: bytes = JPEG, label: str = "cat", request_id: str = "r", index: int = 0) -> Kept:
    return Kept(image, request_id, index, "tiny 2", label, 0.48, {"confident": False})


def tasks(folder: Path) -> list[dict[str, Any]]:
    """Each line is a task whose image is there."""
    lines = (folder / "tasks.jsonl").read_text().splitlines() if (folder / "tasks.jsonl").exists() else []
    found = [json.loads(line) for line in lines]
    assert all((folder / task["data"]["file"]).is_file() for task in found)
    return found


def size(folder: Path) -> int:
    """As `du` counts it."""
    return sum(4096 * -(-path.lstat().st_size // 4096) for path in [folder, *folder.rglob("*")])


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


def test_an_image_lies_in_the_folder_of_its_label_with_a_task_of_label_studio(tmp_path: Path) -> None:
    folder = KeptFolder(tmp_path / "new" / "kept", LARGE)
    folder.open()
    folder.add(kept(label="tench, Tinca tinca"))
    folder.add(kept(b"\x89PNG", request_id="../x y", index=3))
    first, second = tasks(tmp_path / "new" / "kept")
    name = first["data"]["file"].partition("/")[2]
    assert first["data"]["file"] == f"tench, Tinca tinca/{name}"
    assert name.endswith("Z-r-0.jpg")
    assert first["data"]["image"] == f"/data/local-files/?d=kept/tench%2C%20Tinca%20tinca/{name}"
    assert (tmp_path / "new" / "kept" / first["data"]["file"]).read_bytes() == JPEG
    assert second["data"]["file"].endswith("Z-___x_y-3.png")
    assert (second["data"]["request_id"], second["data"]["index"], second["data"]["confident"]) == ("../x y", 3, False)
    (prediction,) = second["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("tiny 2", 0.48)
    assert prediction["result"][0]["value"] == {"choices": ["cat"]}


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    KeptFolder(tmp_path / "kept", LARGE).add(kept())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "kept").rglob("*")}
    assert {mode for name, mode in modes.items() if name != "cat"} == {0o600}
    assert (modes["cat"], stat.S_IMODE((tmp_path / "kept").stat().st_mode)) == (0o700, 0o700)


def test_the_oldest_are_deleted_first_and_the_size_stays_within_the_limit(tmp_path: Path) -> None:
    most = 200_000
    folder = KeptFolder(tmp_path, most)
    folder.open()
    deleted = 0
    for number in range(100):
        total, gone = folder.add(kept(label=f"class {number // 40}", request_id=f"{number}"))
        deleted += gone
        assert size(tmp_path) <= total <= most
        assert len(tasks(tmp_path)) == len(list(images_in(tmp_path))) == number + 1 - deleted
    newest = [int(task["data"]["request_id"]) for task in tasks(tmp_path)]
    assert newest == list(range(deleted, 100))
    assert len(newest) > 30
    assert not (tmp_path / "class 0").exists()  # training refuses an empty class
    with pytest.raises(TooLarge):
        folder.add(kept(b"x" * most))
    assert len(tasks(tmp_path)) == len(newest)


def test_what_somebody_moved_or_put_there_is_theirs(tmp_path: Path) -> None:
    folder = KeptFolder(tmp_path, 60_000)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "mine.jpg").write_bytes(JPEG)
    folder.add(kept(request_id="moved"))
    (path,) = [path for path in images_in(tmp_path) if path.name != "mine.jpg"]
    (tmp_path / "dog").mkdir()
    path.rename(tmp_path / "dog" / path.name)
    for number in range(30):
        folder.add(kept(request_id=f"{number}"))
    assert (tmp_path / "cat" / "mine.jpg").exists()
    assert (tmp_path / "dog" / path.name).exists()
    assert "moved" not in {task["data"]["request_id"] for task in tasks(tmp_path)}


def test_a_list_that_was_changed_deletes_nothing_else(tmp_path: Path) -> None:
    outside = tmp_path / "outside" / NAME
    outside.parent.mkdir()
    outside.write_bytes(JPEG)
    folder = KeptFolder(tmp_path / "kept", 60_000)
    folder.add(kept())
    lines = [b"no json", b"[]", b'{"data": 1}', b'{"data": {"file": 3}}']
    lines += [json.dumps({"data": {"file": f"{name}/{NAME}"}}).encode() for name in ("../outside", "..", ".")]
    with (tmp_path / "kept" / "tasks.jsonl").open("ab") as file:
        file.write(b"\n".join(lines) + b'\n{"data": {"file": "cat/half')
    (tmp_path / "kept" / ".lock").write_text(f"nonsense\n../outside/{NAME}\n\n/")
    folder.open()
    assert len(tasks(tmp_path / "kept")) == 1
    for _ in range(30):
        folder.add(kept())
    assert outside.exists()


@pytest.mark.parametrize(
    "label",
    [
        "tasks.jsonl",
        "a/b",
        "..",
        ".hidden",
        "\x00",
        "a\nb",
        "x" * 300,
        "\N{GRINNING FACE}" * 300,
        "\ud800",
        " ",
        "a\\b",
    ],
)
def test_no_label_is_a_path(tmp_path: Path, label: str) -> None:
    KeptFolder(tmp_path, LARGE).add(kept(label=label))
    (task,) = tasks(tmp_path)
    assert task["data"]["file"].count("/") == 1
    assert [path.parent.parent for path in images_in(tmp_path)] == [tmp_path]
    assert folder_name(label) != folder_name(label + "2")


def test_names_are_unique_even_with_one_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = file_name(kept())
    monkeypatch.setattr("service.feedback.folder.file_name", lambda _: name)
    folder = KeptFolder(tmp_path, LARGE)
    for _ in range(3):
        folder.add(kept())
    assert len({task["data"]["file"] for task in tasks(tmp_path)}) == 3


def test_a_line_that_ends_in_the_middle_is_no_part_of_the_next(tmp_path: Path) -> None:
    """As a kill in the middle of a write leaves it: the lock's file names the image, half of its line is there."""
    folder = KeptFolder(tmp_path, LARGE)
    folder.add(kept())
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / NAME).write_bytes(JPEG)
    (tmp_path / ".lock").write_text(f"4096\ndog/{NAME}")
    with (tmp_path / "tasks.jsonl").open("ab") as file:
        file.write(b'{"data": {"image": "/data')
    folder.add(kept())
    assert len(tasks(tmp_path)) == 2
    assert not (tmp_path / "dog").exists()


def spawn(target: Any, *arguments: Any) -> SpawnProcess:
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    return process


def add_on_a_full_disk(path: Path, limit: int) -> None:
    """No file of this process may have more bytes: a disk that is full in the middle of a write. Exits with 0 if every
    image was refused."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for _ in range(3):
        try:
            KeptFolder(path, LARGE).add(kept(label="dog"))
        except OSError:
            continue
        os._exit(3)
    os._exit(0)


@pytest.mark.parametrize("missing", [4000, 10])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, missing: int) -> None:
    """Once the image does not fit, once its line does not."""
    folder = KeptFolder(tmp_path, LARGE)
    while not (tmp_path / "tasks.jsonl").exists() or (tmp_path / "tasks.jsonl").stat().st_size < len(JPEG):
        folder.add(kept())
    before = tasks(tmp_path)
    line_end = (tmp_path / "tasks.jsonl").stat().st_size + len(json.dumps(before[0])) - missing
    process = spawn(add_on_a_full_disk, tmp_path, min(line_end, len(JPEG) - 1) if missing > 1000 else line_end)
    process.join()
    assert process.exitcode == 0
    assert tasks(tmp_path) == before
    assert not (tmp_path / "dog").exists()
    assert not leftovers(tmp_path)
    folder.add(kept())
    assert len(tasks(tmp_path)) == len(before) + 1


def add_many(path: Path, name: str, count: int) -> None:
    folder = KeptFolder(path, 400_000)
    for number in range(count):
        folder.add(kept(request_id=f"{name}-{number}", label=f"class {number % 3}"))


def test_several_processes_share_the_folder(tmp_path: Path) -> None:
    processes = [spawn(add_many, tmp_path, name, 100) for name in ("a", "b")]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert size(tmp_path) <= 400_000
    found = [task["data"]["request_id"] for task in tasks(tmp_path)]
    assert len(found) == len(list(images_in(tmp_path))) > 50
    assert len(set(found)) == len(found)


def test_after_a_kill_at_any_moment_the_list_is_valid_and_nothing_is_left_over(tmp_path: Path) -> None:
    for delay in range(6):
        before = len(list(images_in(tmp_path)))
        process = spawn(add_many, tmp_path, f"{delay}", 100_000)
        while not delay and len(list(images_in(tmp_path))) == before:
            assert process.is_alive()
        process.join(0.02 * delay + (0.3 if delay else 0))
        process.kill()
        process.join()
        assert process.exitcode == -9
        tasks(tmp_path)
        KeptFolder(tmp_path, 400_000).open()
        assert len(tasks(tmp_path)) == len(list(images_in(tmp_path)))
        assert not leftovers(tmp_path)
        assert size(tmp_path) <= 400_000
