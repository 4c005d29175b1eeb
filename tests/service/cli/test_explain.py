"""`classify --labels`, `--explain` and `--explain-dir`, and `embed`."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.explanation.head import read_head
from models.store import STORE, find_bundle, open_bundle
from models.versions import write_version

SAMPLES = STORE.parent / "samples"
FP32 = ("--model", "repvgg-tiny-cifar10", "--precision", "fp32")


def test_labels_restrict_the_answer_and_unknown_ones_are_named(repvgg: Callable[..., Any]) -> None:
    ended = repvgg("classify", *FP32, "--json", "--labels", "dog,ship", SAMPLES / "cat.jpg")
    predictions = json.loads(ended.out)["predictions"]
    assert {one["label"] for one in predictions} == {"dog", "ship"}
    assert sum(one["score"] for one in predictions) == pytest.approx(1)
    refused = repvgg("classify", *FP32, "--labels", "gnu", SAMPLES / "cat.jpg")
    assert refused.code == 2
    assert "--labels: the network has no gnu" in refused.err


def test_json_has_the_grids_if_asked(repvgg: Callable[..., Any]) -> None:
    ended = repvgg("classify", *FP32, "--json", "--explain", SAMPLES / "cat.jpg")
    for one in json.loads(ended.out)["predictions"]:
        assert np.sum(one["cam"]["grid"]) + one["cam"]["bias"] == pytest.approx(one["cam"]["logit"], abs=1e-4)
    assert repvgg("classify", *FP32, "--explain", SAMPLES / "cat.jpg").code == 2


def test_a_picture_shows_what_spoke_for_the_label_on_the_upright_photo(
    repvgg: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "in" / "sub"
    folder.mkdir(parents=True)
    with Image.open(find_bundle("repvgg-tiny-cifar10") / "golden" / "cat.jpg") as photo:
        exif = photo.getexif()
        exif[0x0112] = 6
        photo.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
        photo.save(folder.parent / "cat.png")
        size = photo.size
    ended = repvgg("classify", *FP32, "--json", "--explain-dir", tmp_path / "out", tmp_path / "in")
    assert (ended.code, "cam" in ended.out) == (0, False)
    turned, plain = (np.asarray(Image.open(tmp_path / "out" / name)) for name in ("sub/turned.png.png", "cat.png.png"))
    assert plain.shape == (*reversed(size), 3)
    np.testing.assert_array_equal(turned, plain)  # what is shown is what a person sees
    with Image.open(folder.parent / "cat.png") as photo:
        before = np.asarray(photo.convert("RGB"), float)
    assert plain[:, 5].mean() < 0.6 * before[:, 5].mean()  # left of the crop it is dark
    redder = (plain[..., 0] - before[..., 0]) - (plain[..., 2] - before[..., 2])
    assert redder[96:144, 128:176].mean() > 20  # the strongest cell


def test_large_photos_give_small_pictures(repvgg: Callable[..., Any], large_photo: bytes, tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(large_photo)
    repvgg("classify", *FP32, "--explain-dir", tmp_path / "out", tmp_path / "large.jpg")
    with Image.open(tmp_path / "out" / "large.jpg.png") as picture:
        assert picture.size == (1024, 682)


def test_embeddings_are_written_in_the_order_of_the_paths(repvgg: Callable[..., Any], tmp_path: Path) -> None:
    ended = repvgg("embed", *FP32, SAMPLES, "--out", tmp_path / "found.npz")
    assert ended.code == 0
    assert f"{len(list(SAMPLES.iterdir()))} embeddings of 256 numbers, repvgg-tiny-cifar10" in ended.out
    with np.load(tmp_path / "found.npz") as found:
        paths, rows = found["paths"].tolist(), found["embeddings"]
    assert paths == sorted(map(str, SAMPLES.iterdir()))
    assert (rows.shape, rows.dtype) == ((len(paths), 256), np.float32)
    repvgg("embed", *FP32, SAMPLES, "--normalize", "--out", tmp_path / "found.csv")
    with (tmp_path / "found.csv").open() as file:
        table = list(csv.reader(file))
    np.testing.assert_allclose(
        [[float(number) for number in row[1:]] for row in table[1:]],
        rows / np.linalg.norm(rows, axis=1, keepdims=True),
        rtol=1e-4,
        atol=1e-6,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.csv", "found.npz"]


def test_an_image_without_an_embedding_is_named_and_left_out(repvgg: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    ended = repvgg("embed", *FP32, SAMPLES / "cat.jpg", tmp_path, "--out", tmp_path / "found.npz")
    assert ended.code == 1
    assert "broken.jpg" in ended.err
    with np.load(tmp_path / "found.npz") as found:
        assert len(found["embeddings"]) == 1


def test_what_cannot_be_written_is_said_before_the_work(
    repvgg: Callable[..., Any], tmp_path: Path, tiny_bundle: Path
) -> None:
    assert "must end in .npz, .csv, .parquet" in repvgg("embed", SAMPLES, "--out", tmp_path / "found.txt").err
    if not find_spec("pyarrow"):
        refused = repvgg("embed", SAMPLES, "--out", tmp_path / "found.parquet")
        assert (refused.code, "pip install 'repvgg[parquet]'" in refused.err) == (78, True)
    refused = repvgg("embed", "--model", tiny_bundle, SAMPLES, "--out", tmp_path / "found.npz")
    assert refused.code == 78
    assert "has no features of tiny 1" in refused.err


def test_a_bundle_of_before_gets_explanations_without_its_checkpoint(
    repvgg: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    ended = repvgg("convert", "--bundle", tiny_bundle, "--store", tmp_path, "--version", 2)
    assert (ended.code, ended.err) == (0, "")
    before, after = (
        repvgg("classify", "--model", folder, "--json", SAMPLES).out
        for folder in (tiny_bundle, tmp_path / "tiny" / "2")
    )
    assert after == before
    explained = repvgg("classify", "--model", tmp_path / "tiny" / "2", "--json", "--explain", SAMPLES / "cat.jpg")
    for one in json.loads(explained.out)["predictions"]:
        assert np.sum(one["cam"]["grid"]) + one["cam"]["bias"] == pytest.approx(one["cam"]["logit"], abs=1e-4)
    assert "--version V names the new version" in repvgg("convert", "--bundle", tiny_bundle).err


def test_features_that_do_not_give_the_logits_never_serve(
    repvgg: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    """A matrix of another network, with the right checksum."""
    repvgg("convert", "--bundle", tiny_bundle, "--store", tmp_path, "--version", 2)
    bundle = open_bundle(tmp_path / "tiny" / "2")
    (artifact,) = bundle.manifest.artifacts
    head = read_head(bundle, artifact)
    assert head is not None
    assert artifact.features is not None
    matrix = replace(head, bias=head.bias + np.float32(0.01)).encode()
    features = artifact.features.model_copy(update={"sha256": hashlib.sha256(matrix).hexdigest()})
    changed = artifact.model_copy(update={"features": features})
    write_version(bundle, tmp_path / "tiny" / "3", [changed], {features.head: matrix})
    ended = repvgg("classify", "--model", tmp_path / "tiny" / "3", SAMPLES / "cat.jpg")
    assert ended.code == 70
    assert "its features give logits that are 0.01 off its own, 0.0001 is allowed" in ended.err
