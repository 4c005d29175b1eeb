"""Bundles are written whole or not at all, whatever happens to their writer."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import models
from models.errors import BundleError
from models.manifest import Manifest
from models.store import Bundle, find_bundle, name_and_version, open_bundle, write_bundle

Values = dict[str, Any]
Files = dict[str, bytes]
Write = Callable[[Path], Bundle]

NAMED = ["labels.txt", "model.onnx", "golden/golden.json"]


def test_a_written_bundle_is_readable_by_another_user(write: Write, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        folder = write(tmp_path / "1").folder
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    folders = {path.stat().st_mode & 0o777 for path in (folder, folder / "golden")}
    assert (modes, folders) == ({0o644}, {0o755})


def test_a_file_to_copy_may_be_read_only(files: Files, values: Values, tmp_path: Path) -> None:
    """MindSpore exports with mode 0400."""
    exported = tmp_path / "exported.onnx"
    exported.write_bytes(files["model.onnx"])
    exported.chmod(0o400)
    bundle = write_bundle(tmp_path / "1", Manifest.from_json(json.dumps(values)), {**files, "model.onnx": exported})
    written = bundle.folder / "model.onnx"
    assert written.read_bytes() == files["model.onnx"]
    assert written.stat().st_mode & 0o777 == 0o644


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_published_bundle_is_never_overwritten(bundle: Bundle, files: Files, write: Write) -> None:
    before = contents(bundle.folder)
    files["labels.txt"] = b"other"
    with pytest.raises(BundleError, match="exists: a published bundle is never changed; give the next version"):
        write(bundle.folder)
    assert contents(bundle.folder) == before
    assert [path.name for path in bundle.folder.parent.iterdir()] == [bundle.folder.name]


@pytest.mark.parametrize("name", NAMED)
def test_a_file_that_does_not_match_its_checksum_is_not_written(
    write: Write, files: Files, name: str, tmp_path: Path
) -> None:
    files[name] += b" "
    with pytest.raises(BundleError, match=f"{name} is corrupt"):
        write(tmp_path / "tiny/1")
    assert list((tmp_path / "tiny").iterdir()) == []


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a\\b", "", "."])
def test_a_name_outside_the_bundle_is_not_written(write: Write, files: Files, name: str, tmp_path: Path) -> None:
    files[name] = b"outside"
    with pytest.raises(BundleError, match="is not a file inside the bundle"):
        write(tmp_path / "tiny/1")
    assert [path.name for path in tmp_path.rglob("*")] == ["tiny"]


def test_a_parent_that_is_a_file_is_a_bundle_error_that_names_it(write: Write, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file/1", tmp_path / "file/deep/1"):
        with pytest.raises(BundleError, match=r"file/.*1 cannot be written: .*file"):
            write(folder)


def test_a_source_that_cannot_be_read_is_a_bundle_error_that_names_it(
    files: Files, values: Values, tmp_path: Path
) -> None:
    manifest = Manifest.from_json(json.dumps(values))
    absent = tmp_path / "absent.onnx"
    with pytest.raises(BundleError, match=f"cannot be written: .*{absent}"):
        write_bundle(tmp_path / "tiny/1", manifest, {**files, "model.onnx": absent})
    assert list((tmp_path / "tiny").iterdir()) == []


# A writer in its own process; `{before}` runs before it writes.
WRITER = """
import json, os, resource, signal, sys
from pathlib import Path
from models.manifest import Manifest
from models.store import write_bundle

manifest, files = json.load(sys.stdin)
files = {{name: bytes.fromhex(content) for name, content in files.items()}}
{before}
write_bundle(Path(sys.argv[1]), Manifest.from_json(json.dumps(manifest)), files)
"""
KILLED = """
class Files(dict):
    def items(self):
        yield from list(super().items())[:int(sys.argv[2])]
        os.kill(os.getpid(), signal.SIGKILL)

files = Files(files)
"""
# Files of this process may not exceed 1000 bytes, even for root (Python ignores the signal and raises OSError).
SMALL_DISK = "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))"


def run_writer(before: str, values: Values, files: Files, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", WRITER.format(before=before), *map(str, arguments)],
        input=json.dumps([values, {name: content.hex() for name, content in files.items()}]).encode(),
        cwd=Path(models.__file__).parent.parent,
        capture_output=True,
    )


def test_a_full_disk_is_a_bundle_error_and_leaves_nothing(values: Values, files: Files, tmp_path: Path) -> None:
    writer = run_writer(SMALL_DISK, values, files, tmp_path / "tiny/1")
    last_line = writer.stderr.decode().splitlines()[-1]
    assert re.search(r"BundleError: .*tiny/1 cannot be written: .*File too large", last_line)
    assert list((tmp_path / "tiny").iterdir()) == []


@pytest.mark.parametrize("written", [0, 2])
def test_a_killed_writer_leaves_no_partial_bundle_visible(
    write: Write, values: Values, files: Files, tmp_path: Path, written: int
) -> None:
    folder = tmp_path / "store/tiny/1"
    writer = run_writer(KILLED, values, files, folder, written)
    assert writer.returncode == -signal.SIGKILL
    drafts = list(folder.parent.iterdir())
    assert [len(contents(draft)) for draft in drafts] == [written]
    with pytest.raises(BundleError, match="or one in the store: none"):
        open_bundle("tiny", tmp_path / "store")
    assert open_bundle(write(folder).folder.parent.name, tmp_path / "store").folder == folder


def test_a_finished_draft_is_not_visible_before_it_is_renamed(bundle: Bundle) -> None:
    shutil.copytree(bundle.folder, bundle.folder.parent / ".2-abc")
    store = bundle.folder.parent.parent
    assert find_bundle("tiny", store) == bundle.folder
    shutil.rmtree(bundle.folder)
    with pytest.raises(BundleError, match="or one in the store: none"):
        open_bundle("tiny", store)


def test_a_reader_never_sees_half_a_bundle(write: Write, tmp_path: Path) -> None:
    """A reader that polls constantly finds either nothing or a complete bundle."""
    store = tmp_path / "store"
    started, done = threading.Event(), threading.Event()
    seen: list[str] = []

    def look() -> None:
        while not done.is_set():
            try:
                seen.append(str(len(open_bundle("tiny", store).labels)))
            except BundleError as error:
                seen.append(str(error))
            started.set()

    reader = threading.Thread(target=look)
    reader.start()
    try:
        assert started.wait(60)
        for version in range(1, 21):
            write(store / "tiny" / str(version))
    finally:
        done.set()
        reader.join()
    nothing = "no model bundle at tiny: give a folder with a manifest.json, or one in the store: "
    assert {sight for sight in seen if not sight.startswith(nothing)} <= {"3"}


def test_one_of_two_concurrent_writers_wins(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "tiny/1"
    barrier = threading.Barrier(4)
    outcomes: list[str] = []

    def work() -> None:
        barrier.wait()
        try:
            outcomes.append(str(write(folder).folder))
        except BundleError as error:
            outcomes.append(str(error))

    writers = [threading.Thread(target=work) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert outcomes.count(str(folder)) == 1
    assert all("exists" in outcome or "cannot be written" in outcome for outcome in outcomes if outcome != str(folder))
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


@pytest.mark.parametrize("folder", ["/", "store/a name/1", "store/name/.1"])
def test_a_folder_that_cannot_name_a_bundle_is_rejected(folder: str) -> None:
    with pytest.raises(BundleError, match="must end in NAME/VERSION"):
        name_and_version(Path(folder))


def test_a_bundle_is_named_after_the_last_two_parts_of_its_folder() -> None:
    assert name_and_version(Path("/store/repvgg-a0/1.2")) == ("repvgg-a0", "1.2")
