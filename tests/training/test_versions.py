import hashlib

import pytest

from models.store import open_bundle
from training.errors import ConfigError
from training.versions import check_new, write_version


def test_the_new_version_has_all_of_the_old_and_what_is_new(tiny_bundle, tmp_path):
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


def test_an_artifact_of_the_same_kind_is_replaced_and_its_file_left_out(tiny_bundle, tmp_path):
    old = open_bundle(tiny_bundle)
    digest = hashlib.sha256(b"net").hexdigest()
    better = old.manifest.artifacts[0].model_copy(update={"file": "better.onnx", "sha256": digest})
    new = write_version(old, tmp_path / "tiny" / "2", [better], {"better.onnx": b"net"}, {})
    assert [artifact.file for artifact in new.manifest.artifacts] == ["better.onnx"]
    assert not (new.folder / "tiny.onnx").exists()


def test_a_folder_that_is_there_or_cannot_be_a_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="exists: a published bundle is never changed"):
        check_new(tmp_path)
    with pytest.raises(ConfigError, match="must end in NAME/VERSION"):
        check_new(tmp_path / "a b" / "1")
    assert check_new(tmp_path / "a" / "1") == ("a", "1")
