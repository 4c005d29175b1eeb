"""The promises of models.store, and bundles that were damaged in transit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import BundleError
from models.store import MANIFEST, Bundle, open_bundle, read, verify

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
    assert refusal(bundle.folder).endswith(f"labels.txt has 3 labels, but the network has {classes} classes")


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
