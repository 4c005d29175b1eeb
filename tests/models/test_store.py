"""The promises of models.store, and bundles that were damaged in transit."""

from __future__ import annotations

import hashlib
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
from models.store import (
    MANIFEST,
    STORE,
    Bundle,
    find_bundle,
    find_versions,
    name_and_version,
    open_bundle,
    read,
    verify,
    write_bundle,
)

Values = dict[str, Any]
Files = dict[str, bytes]
Write = Callable[[Path], Bundle]

NAMED = ["labels.txt", "model.onnx", "golden/golden.json"]


def refusal(model: str | Path, **where: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(model, **where)
    return str(caught.value)


def rewrite_manifest(bundle: Bundle, values: Values) -> None:
    (bundle.folder / MANIFEST).write_text(json.dumps(values), encoding="utf-8")


def test_a_valid_bundle_opens_with_its_labels_and_artifacts(bundle: Bundle, files: Files) -> None:
    opened = open_bundle(bundle.folder)
    assert opened == bundle
    assert opened.labels == ("cat", "dog", "ship")
    artifact = opened.artifact(["mindir", "onnx"], "fp32")
    assert opened.path(artifact).read_bytes() == files["model.onnx"]


def test_a_missing_artifact_lists_the_existing_ones(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no onnx or mindir artifact of precision int8; it has: onnx fp32"):
        bundle.artifact(("onnx", "mindir"), "int8")


@pytest.mark.parametrize("name", NAMED)
def test_a_bundle_with_a_missing_file_is_not_opened(bundle: Bundle, name: str) -> None:
    (bundle.folder / name).unlink()
    assert refusal(bundle.folder) == f"{bundle.folder / name} is missing; copy the bundle again"


@pytest.mark.parametrize("name", NAMED)
def test_a_folder_in_place_of_a_file_is_a_missing_file(bundle: Bundle, name: str) -> None:
    (bundle.folder / name).unlink()
    (bundle.folder / name).mkdir()
    assert f"{bundle.folder / name} is missing" in refusal(bundle.folder)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("place", [0, -1])
def test_a_bundle_with_one_flipped_byte_is_not_opened(bundle: Bundle, name: str, place: int) -> None:
    path = bundle.folder / name
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    message = refusal(bundle.folder)
    assert message.startswith(f"{path} is corrupt: its sha256 is {hashlib.sha256(content).hexdigest()}")


@pytest.mark.parametrize("name", NAMED)
def test_a_file_cut_short_is_corrupt(bundle: Bundle, name: str) -> None:
    os.truncate(bundle.folder / name, 5)
    assert f"{bundle.folder / name} is corrupt" in refusal(bundle.folder)


def test_one_flipped_byte_of_the_manifest_never_opens_another_bundle(bundle: Bundle) -> None:
    """The manifest has no checksum of its own: a flip is detected, or it changes a value that nothing can check."""
    path = bundle.folder / MANIFEST
    right = path.read_bytes()
    opened = 0
    for place in range(len(right)):
        path.write_bytes(right[:place] + bytes([right[place] ^ 1]) + right[place + 1 :])
        try:
            other = open_bundle(bundle.folder)
        except BundleError as error:
            assert str(bundle.folder) in str(error)  # noqa: PT017  # both outcomes are valid
        else:
            opened += 1
            assert other.labels == bundle.labels
            assert other.manifest.artifacts[0].sha256 == bundle.manifest.artifacts[0].sha256
    assert 0 < opened < len(right)


def test_a_manifest_that_is_not_valid_is_named_with_its_folder(bundle: Bundle, values: Values) -> None:
    values["network"]["num_classes"] = 0
    rewrite_manifest(bundle, values)
    assert refusal(bundle.folder).startswith(f"{bundle.folder}: manifest.json is not valid: network.num_classes: ")


@pytest.mark.parametrize("classes", [2, 4])
def test_a_wrong_label_count_is_rejected(bundle: Bundle, values: Values, classes: int) -> None:
    values["network"]["num_classes"] = classes
    rewrite_manifest(bundle, values)
    assert refusal(bundle.folder).endswith(f"labels.txt has 3 labels, the network has {classes} classes")


def test_labels_may_have_a_byte_order_mark_and_the_line_ends_of_windows(
    files: Files, values: Values, write: Write, tmp_path: Path
) -> None:
    files["labels.txt"] = b"\xef\xbb\xbfcat\r\ndog\r\nship\r\n"
    values["labels"]["sha256"] = hashlib.sha256(files["labels.txt"]).hexdigest()
    assert open_bundle(write(tmp_path / "1").folder).labels == ("cat", "dog", "ship")


def test_labels_that_are_not_text_are_rejected(files: Files, values: Values, write: Write, tmp_path: Path) -> None:
    files["labels.txt"] = b"cat\n\xff\xfe\nship\n"
    values["labels"]["sha256"] = hashlib.sha256(files["labels.txt"]).hexdigest()
    with pytest.raises(BundleError, match=r"labels\.txt is not UTF-8 text"):
        write(tmp_path / "1")


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/passwd", "golden\\golden.json"])
def test_nothing_outside_the_folder_is_read_whatever_the_manifest_says(
    bundle: Bundle, values: Values, name: str
) -> None:
    (bundle.folder.parent / "outside.txt").write_bytes(b"cat\ndog\nship\n")
    values["labels"]["file"] = name
    rewrite_manifest(bundle, values)
    assert f"labels.file: Value error, {name!r} is not a file inside the bundle" in refusal(bundle.folder)


@pytest.mark.parametrize("name", NAMED)
def test_a_symlink_out_of_the_bundle_is_rejected(bundle: Bundle, name: str) -> None:
    outside = bundle.folder.parent / "outside"
    shutil.move(bundle.folder / name, outside)
    (bundle.folder / name).symlink_to(outside)
    assert refusal(bundle.folder) == f"{bundle.folder / name} is outside the bundle"


def test_a_linked_folder_outside_the_bundle_is_rejected(bundle: Bundle) -> None:
    shutil.move(bundle.folder / "golden", bundle.folder.parent / "golden")
    (bundle.folder / "golden").symlink_to("../golden")
    assert refusal(bundle.folder) == f"{bundle.folder / 'golden/golden.json'} is outside the bundle"


def test_symlinks_inside_the_bundle_are_accepted_as_volumes_make_them(bundle: Bundle) -> None:
    (bundle.folder / "..data").mkdir()
    shutil.move(bundle.folder / "labels.txt", bundle.folder / "..data/labels.txt")
    (bundle.folder / "labels.txt").symlink_to("..data/labels.txt")
    latest = bundle.folder.parent / "latest"
    latest.symlink_to(bundle.folder.name)
    assert open_bundle(latest).labels == bundle.labels


def test_circular_symlinks_are_a_missing_file(bundle: Bundle) -> None:
    (bundle.folder / "labels.txt").unlink()
    (bundle.folder / "labels.txt").symlink_to("labels.txt")
    assert "labels.txt is missing" in refusal(bundle.folder)


def test_a_name_too_long_for_the_file_system_is_rejected(bundle: Bundle, values: Values) -> None:
    values["labels"]["file"] = "a" * 3000
    rewrite_manifest(bundle, values)
    assert "aaa cannot be read: File name too long" in refusal(bundle.folder)
    assert "aaa cannot be read: File name too long" in refusal("a" * 3000)


def test_a_disk_error_is_a_bundle_error_that_names_the_file() -> None:
    # Reading a process's memory at address 0 fails with an I/O error, even for root.
    with pytest.raises(BundleError, match=r"^/proc/self/mem cannot be read: Input/output error$"):
        read(Path("/proc/self/mem"))
    with pytest.raises(BundleError, match=r"^/proc/self/mem cannot be read: Input/output error$"):
        verify(Path("/proc/self"), "mem", "0" * 64)


# --- finding


@pytest.fixture
def store(write: Write, values: Values, tmp_path: Path) -> Callable[..., Path]:
    """Fill a store: `store("tiny/2", "tiny/10")` -> its folder."""

    def fill(*names: str) -> Path:
        for name in names:
            write(tmp_path / "store" / name)
        return tmp_path / "store"

    return fill


@pytest.mark.parametrize(
    ("versions", "newest"),
    [
        ("2 10", "10"),
        ("9 10 1", "10"),
        ("1.2.0 1.10.0", "1.10.0"),
        ("v2 v10", "v10"),
        ("1 beta", "1"),
        ("1 1.1", "1.1"),
        ("1 2-rc1", "2-rc1"),
    ],
)
def test_a_name_means_its_newest_version_by_number(store: Callable[..., Path], versions: str, newest: str) -> None:
    folder = store(*(f"tiny/{version}" for version in versions.split()))
    assert find_bundle("tiny", folder) == folder / "tiny" / newest
    assert find_bundle("tiny/", folder) == folder / "tiny" / newest
    assert find_bundle(folder / "tiny", STORE) == folder / "tiny" / newest


def test_a_non_ascii_digit_in_a_version_is_text(store: Callable[..., Path]) -> None:
    folder = store("tiny/²", "tiny/1")
    assert find_bundle("tiny", folder) == folder / "tiny" / "1"


def test_a_name_with_a_version_means_exactly_that_version(store: Callable[..., Path]) -> None:
    folder = store("tiny/2", "tiny/10", "other/3")
    assert find_bundle("tiny/2", folder) == folder / "tiny/2"
    assert open_bundle("other", folder).folder == folder / "other/3"


def test_a_folder_takes_precedence_over_the_store(store: Callable[..., Path]) -> None:
    folder = store("tiny/2")
    assert find_bundle(folder / "tiny/2", STORE) == folder / "tiny/2"
    assert find_bundle(str(folder / "tiny/2"), STORE) == folder / "tiny/2"


@pytest.mark.parametrize("model", ["unknown", "tiny/3", "tiny/2/golden", "../store/tiny", "/nowhere", "/"])
def test_an_unknown_model_lists_the_known_ones(store: Callable[..., Path], model: str) -> None:
    folder = store("tiny/2", "tiny/10", "other/3")
    message = refusal(model, store=folder)
    assert message == (
        f"no model bundle at {model}: give a folder with a manifest.json, or one of the store: other/3, tiny/10, tiny/2"
    )


def test_an_empty_store_lists_none(tmp_path: Path) -> None:
    assert refusal("tiny", store=tmp_path / "nowhere").endswith("or one of the store: none")


# --- writing


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
    assert "or one of the store: none" in refusal("tiny", store=tmp_path / "store")
    assert open_bundle(write(folder).folder.parent.name, tmp_path / "store").folder == folder


def test_a_finished_draft_is_not_visible_before_it_is_renamed(bundle: Bundle) -> None:
    shutil.copytree(bundle.folder, bundle.folder.parent / ".2-abc")
    store = bundle.folder.parent.parent
    assert find_bundle("tiny", store) == bundle.folder
    shutil.rmtree(bundle.folder)
    assert "or one of the store: none" in refusal("tiny", store=store)


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
    nothing = "no model bundle at tiny: give a folder with a manifest.json, or one of the store: "
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


def test_the_versions_that_a_name_stands_for_newest_first(store: Callable[..., Path]) -> None:
    folder = store("tiny/9", "tiny/10", "tiny/beta")
    tiny = folder / "tiny"
    for other in ("11", "3", ".12", "lost+found"):  # 11: a copy that broke off, or goes on
        (tiny / other).mkdir()
    (tiny / "12").write_text("a file")
    for model in ("tiny", tiny):
        assert [path.name for path in find_versions(model, folder)] == ["11", "10", "9", "beta"]
    for model in ("tiny/9", tiny / "9"):
        assert find_versions(model, folder) == [tiny / "9"]
    with pytest.raises(BundleError, match="no model bundle at nothing"):
        find_versions("nothing", folder)
