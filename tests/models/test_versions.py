from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from models.errors import BundleError
from models.store import open_bundle
from models.versions import write_version


def test_the_new_version_has_everything_of_the_old_one_and_the_additions(tiny_bundle: Path, tmp_path: Path) -> None:
    old = open_bundle(tiny_bundle)
    before = {path: path.read_bytes() for path in old.folder.rglob("*") if path.is_file()}
    digest = hashlib.sha256(b"net").hexdigest()
    added = old.manifest.artifacts[0].model_copy(update={"precision": "int8", "file": "new.onnx", "sha256": digest})
    new = write_version(old, tmp_path / "other" / "2", [added], {"new.onnx": b"net"}, {"int8": 0.5})
    assert (new.manifest.name, new.manifest.version) == ("other", "2")
    assert new.manifest.created_at != old.manifest.created_at
    assert [artifact.precision for artifact in new.manifest.artifacts] == ["fp32", "int8"]
    assert new.manifest.golden.tolerance == {"fp32": 1e-4, "int8": 0.5}
    assert new.labels == old.labels
    assert {path: path.read_bytes() for path in before} == before


def test_an_artifact_of_the_same_kind_is_replaced_with_its_file(tiny_bundle: Path, tmp_path: Path) -> None:
    old = open_bundle(tiny_bundle)
    digest = hashlib.sha256(b"net").hexdigest()
    better = old.manifest.artifacts[0].model_copy(update={"file": "better.onnx", "sha256": digest})
    new = write_version(old, tmp_path / "tiny" / "2", [better], {"better.onnx": b"net"})
    assert [artifact.file for artifact in new.manifest.artifacts] == ["better.onnx"]
    assert not (new.folder / "tiny.onnx").exists()


def test_manifest_values_can_be_changed_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    new = write_version(open_bundle(tiny_bundle), tmp_path / "tiny" / "2", temperature=1.5)
    assert open_bundle(new.folder).manifest.temperature == 1.5


def test_an_existing_version_is_never_changed(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="a published bundle is never changed"):
        write_version(open_bundle(tiny_bundle), tiny_bundle)
