"""A start passes over versions that cannot serve."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from models.errors import BundleError
from models.store import MANIFEST
from service.classify.opening import OpenModel
from service.errors import ConfigError, EngineUnavailable, GoldenCheckFailed
from service.settings import Settings

Write = Callable[..., Path]


def settings(model: Path, **others: object) -> Settings:
    return Settings.model_validate({"model": str(model), "engine": "onnxruntime", "max_batch_size": 1} | others)


def corrupt(folder: Path) -> None:
    (folder / "tiny.onnx").write_bytes(b"x")


def cut(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[: len(text) // 2])


def lose_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def lose_labels(folder: Path) -> None:
    (folder / "labels.txt").unlink()


def unplug(folder: Path) -> None:
    """What is left when the volume that a link leads to is not there."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / MANIFEST).symlink_to(folder / "gone")


@pytest.mark.parametrize("break_it", [corrupt, cut, lose_manifest, lose_labels, unplug])
def test_a_corrupt_newest_version_is_passed_over(write_version: Write, break_it: Callable[[Path], None]) -> None:
    store = write_version(9).parent
    write_version(2)
    break_it(write_version(10))
    opened = OpenModel.open_newest_good(settings(store))
    opened.close()
    assert opened.bundle.manifest.version == "9"
    [(version, reason)] = opened.passed_over
    assert version == "10"
    assert "tiny/10" in reason
    with pytest.raises(BundleError, match="tiny/10"):
        OpenModel.open_newest_good(settings(store, strict_version=True))


def test_so_is_one_that_fails_the_golden_check_and_more_than_one(write_version: Write) -> None:
    store = write_version(1).parent
    corrupt(write_version(2))
    write_version(3, wrong=True)
    opened = OpenModel.open_newest_good(settings(store))
    opened.close()
    assert opened.bundle.manifest.version == "1"
    assert [version for version, _ in opened.passed_over] == ["3", "2"]
    with pytest.raises(GoldenCheckFailed):
        OpenModel.open_newest_good(settings(store, strict_version=True))


def test_the_newest_is_opened_if_it_is_good_whatever_the_others_are(write_version: Write) -> None:
    corrupt(write_version(1))
    opened = OpenModel.open_newest_good(settings(write_version(2).parent))
    opened.close()
    assert (opened.bundle.manifest.version, opened.passed_over) == ("2", ())


def test_if_none_is_good_the_error_is_that_of_the_newest(write_version: Write) -> None:
    write_version(1, wrong=True)
    corrupt(newest := write_version(2))
    with pytest.raises(BundleError, match="tiny/2"):
        OpenModel.open_newest_good(settings(newest.parent))


def test_a_version_that_is_named_is_the_only_one(write_version: Write) -> None:
    write_version(1)
    corrupt(newest := write_version(2))
    with pytest.raises(BundleError, match="tiny/2"):
        OpenModel.open_newest_good(settings(newest))


def test_what_is_not_the_bundle_s_fault_ends_the_start(write_version: Write) -> None:
    write_version(1)
    store = write_version(2).parent
    with pytest.raises(ConfigError, match="fast"):
        OpenModel.open_newest_good(settings(store, pixels="fast"))
    with pytest.raises((EngineUnavailable, ConfigError)):
        OpenModel.open_newest_good(settings(store, engine_python="/nowhere/python"))
