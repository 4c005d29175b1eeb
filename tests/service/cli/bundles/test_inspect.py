from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.store import open_bundle


def test_the_facts_are_readable(repvgg: Callable[..., Any], tiny_bundle: Path) -> None:
    ended = repvgg("inspect", tiny_bundle)
    facts = [line.split(maxsplit=1) for line in ended.out.splitlines()]
    assert ended.code == 0
    assert ["bundle", "tiny 1, written 2026-01-31T12:00:00Z"] in facts
    assert ["network", "tiny, 10 classes, 314 parameters"] in facts
    assert ["golden", "3 images, largest difference allowed: fp32 0.0001"] in facts
    assert ["accuracy", "not measured"] in facts
    assert ["pixels", "exact only: the manifest gives no accuracy of fast pixels"] in facts
    (artifact,) = [fact for name, fact in facts if name == "artifact"]
    assert artifact.startswith("onnx fp32, tiny.onnx, ")


def test_fast_pixels_are_described_as_they_were_measured(repvgg: Callable[..., Any], fast_bundle: Path) -> None:
    said = "pixels      exact, or fast: 99.00% of 500 large photos keep their answer, top-1 89.80% instead of 90.00%"
    assert said in repvgg("inspect", fast_bundle).out.splitlines()


def test_the_confidence_is_shown(repvgg: Callable[..., Any]) -> None:
    (said,) = [line for line in repvgg("inspect", "repvgg-tiny-cifar10").out.splitlines() if line.startswith("confid")]
    assert said.startswith("confidence  fitted on 5000 images: 91.74% answered confidently, 93.26% of these right")


def test_the_licence_of_the_weights_is_shown(repvgg: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny" / "1"))
    manifest = open_bundle(folder).manifest
    training = manifest.training.model_copy(update={"licence": "research only"})
    (folder / "manifest.json").write_text(manifest.model_copy(update={"training": training}).to_json())
    assert "licence     research only" in repvgg("inspect", folder).out.splitlines()


def test_json_holds_the_manifest(repvgg: Callable[..., Any], tiny_bundle: Path) -> None:
    facts = json.loads(repvgg("inspect", "--json", tiny_bundle).out)
    bundle = open_bundle(tiny_bundle)
    assert facts["manifest"] == bundle.manifest.model_dump(mode="json")
    assert facts["labels"] == list(bundle.labels)
    assert (facts["folder"], facts["golden_images"]) == (str(tiny_bundle), 3)


@pytest.mark.parametrize("file", ["tiny.onnx", "labels.txt", "golden/golden.json", "golden/1.png"])
def test_a_file_that_changed_is_named(repvgg: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_bundle, folder)
    with (folder / file).open("ab") as changed:
        changed.write(b"x")
    ended = repvgg("inspect", folder)
    assert (ended.code, ended.out) == (66, "")
    assert ended.err.startswith(f"repvgg inspect: {folder / file} is corrupt")


def test_a_missing_bundle_is_reported(repvgg: Callable[..., Any], tmp_path: Path) -> None:
    ended = repvgg("inspect", tmp_path)
    assert ended.code == 66
    assert ended.err.startswith(f"repvgg inspect: no model bundle at {tmp_path}")
