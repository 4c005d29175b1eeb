"""What `training.start` writes, the service opens: answers, explanations, embeddings."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.explanation.head import read_head
from models.preprocess import preprocess
from models.store import Bundle, open_bundle
from service.cli import main
from tests.training.own.conftest import photo_of
from training import start
from training.own.backbone import Backbone

COLOURS = {"lemon": (230, 220, 60), "lime": (90, 190, 60), "plum": (110, 50, 130)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten photos of each of three fruits."""
    root = tmp_path_factory.mktemp("photos")
    for number, (name, colour) in enumerate(COLOURS.items()):
        (root / name).mkdir()
        for index in range(10):
            photo_of(colour, 1000 * number + index).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def bundle(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("made")
    flags = ["--out", str(root / "fruit" / "1"), "--from", "repvgg-tiny-cifar10", "--head-only"]
    assert start.main([str(photos), *flags, "--record", str(root / "record")]) == 0
    return open_bundle(root / "fruit" / "1")


@pytest.fixture
def repvgg(bundle: Bundle) -> Iterator[Callable[..., str]]:
    """`repvgg("classify", path)`, with the bundle, in fp32 -> what was printed."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)

    def run(verb: str, *arguments: Any) -> str:
        out, err = StringIO(), StringIO()
        flags = ["--model", bundle.folder, "--engine", "onnxruntime", "--precision", "fp32", *arguments]
        assert main([verb, *map(str, flags)], {}, out, err) == 0, err.getvalue()
        return out.getvalue()

    yield run
    root.handlers[:], root.level = before


def test_its_answers_are_explained_by_a_grid_that_adds_up_to_the_logit(
    bundle: Bundle, photos: Path, repvgg: Callable[..., Any]
) -> None:
    photo, artifact = photos / "plum" / "3.png", bundle.artifact(("onnx",), "fp32")
    predictions = json.loads(repvgg("classify", "--json", "--explain", photo))["predictions"]
    head, backbone = read_head(bundle, artifact), Backbone(bundle)
    assert head is not None
    logits = head(backbone.compute(preprocess(photo.read_bytes(), bundle.manifest.preprocess)[None]))[0]
    assert {one["label"] for one in predictions} == set(COLOURS)
    for one in predictions:
        class_id = one["class_id"]
        assert np.sum(one["cam"]["grid"]) + head.bias[class_id] == pytest.approx(logits[class_id], abs=1e-4)
        assert one["cam"]["logit"] == pytest.approx(logits[class_id], abs=1e-4)
        assert np.sum(one["cam"]["grid"]) + one["cam"]["bias"] == pytest.approx(one["cam"]["logit"], abs=1e-4)


def test_its_embeddings_are_what_the_classifier_was_fitted_on(
    bundle: Bundle, photos: Path, repvgg: Callable[..., Any], tmp_path: Path
) -> None:
    photo = photos / "lime" / "0.png"
    repvgg("embed", photo, "--out", tmp_path / "found.npz")
    features = Backbone(bundle).compute(preprocess(photo.read_bytes(), bundle.manifest.preprocess)[None])[0]
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_allclose(found["embeddings"][0], features, atol=1e-4)


def test_a_new_bundle_can_be_the_start_of_the_next(
    bundle: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.own.command.engines", lambda folder: [])  # they were checked on the first bundle
    flags = ["--out", str(tmp_path / "fruit" / "2"), "--from", str(bundle.folder), "--head-only"]
    assert start.main([str(photos), *flags, "--record", str(tmp_path / "record")]) == 0
    again = open_bundle(tmp_path / "fruit" / "2").artifact(("onnx",), "fp32")
    assert again.features is not None
