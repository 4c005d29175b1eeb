from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.errors import ImageError
from models.scores.topk import Prediction
from service.classify.outcomes import Classified, Timings
from service.errors import EngineFailed
from service.evaluation.evaluate import answers_of


@pytest.fixture
def labelled(repvgg: Callable[..., Any], tiny_bundle: Path, draw_image: Callable[..., bytes], tmp_path: Path) -> Path:
    """A folder a class, 23 images: sorted by what the bundle itself says, except that two lie in a wrong folder."""
    unsorted, data = tmp_path / "unsorted", tmp_path / "data"
    unsorted.mkdir()
    for seed in range(23):
        (unsorted / f"{seed:02}.jpg").write_bytes(draw_image(seed))
    lines = repvgg("classify", "--model", tiny_bundle, "--json", "--top-k", 10, unsorted).out.splitlines()
    for number, line in enumerate(lines):
        result = json.loads(line)
        place = {0: 3, 1: 9}.get(number, 0)  # one is among the best five only, one not even there
        folder = data / result["predictions"][place]["label"]
        folder.mkdir(parents=True, exist_ok=True)
        Path(result["path"]).rename(folder / result["filename"])
    return data


@pytest.mark.parametrize("batch_size", [1, 4, 23, 64])
def test_every_image_counts_including_the_last_batch(
    repvgg: Callable[..., Any], labelled: Path, tiny_bundle: Path, batch_size: int
) -> None:
    ended = repvgg("evaluate", "--model", tiny_bundle, "--data", labelled, "--batch-size", batch_size, "--json")
    figures = json.loads(ended.out.splitlines()[-1])
    assert ended.code == 0
    assert set(figures) == {"images", "top1", "top5", "images_per_second", "engine", "precision", "pixels"}
    assert (figures["images"], figures["top1"], figures["top5"]) == (23, 21 / 23, 22 / 23)
    assert (figures["engine"], figures["precision"], figures["pixels"]) == ("onnxruntime", "fp32", "exact")
    assert figures["images_per_second"] > 0


def test_an_undecodable_image_counts_as_wrong_and_is_named(
    repvgg: Callable[..., Any], labelled: Path, tiny_bundle: Path
) -> None:
    folder = next(labelled.iterdir())
    (folder / "broken.png").write_bytes(b"junk")
    ended = repvgg("evaluate", "--model", tiny_bundle, "--data", labelled, "--json")
    figures = json.loads(ended.out)
    assert (ended.code, figures["images"], figures["top1"]) == (0, 24, 21 / 24)
    assert f"{folder / 'broken.png'}: counts as wrong: not a readable image" in ended.err


def test_without_json_it_is_one_sentence(repvgg: Callable[..., Any], labelled: Path, tiny_bundle: Path) -> None:
    ended = repvgg("evaluate", "--model", tiny_bundle, "--data", labelled, "--engine", "fake")
    assert ended.out.startswith("23 images: top-1 ")
    assert ended.out.endswith(" images/s with fake fp32\n")


def test_fast_pixels_are_measured_whatever_the_manifest_says(
    repvgg: Callable[..., Any], labelled: Path, tiny_bundle: Path
) -> None:
    ended = repvgg("evaluate", "--model", tiny_bundle, "--data", labelled, "--pixels", "fast")
    assert (ended.code, ended.out.endswith(" images/s with onnxruntime fp32, fast pixels\n")) == (0, True)


def test_a_missing_folder_is_wrong_usage(repvgg: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> None:
    ended = repvgg("evaluate", "--model", tiny_bundle, "--data", tmp_path / "none")
    assert (ended.code, ended.err) == (2, f"repvgg evaluate: --data {tmp_path / 'none'} is not a folder\n")


def test_a_folder_that_is_not_a_class_suggests_the_nearest_one(
    repvgg: Callable[..., Any], labelled: Path, tiny_bundle: Path
) -> None:
    (labelled / "hoarse").mkdir()
    ended = repvgg("evaluate", "--model", tiny_bundle, "--data", labelled)
    assert ended.code == 2
    assert "hoarse is not one of the bundle's 10 classes; did you mean horse?" in ended.err


def test_a_folder_without_images_explains_the_layout(
    repvgg: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    ended = repvgg("evaluate", "--model", tiny_bundle, "--data", tmp_path)
    assert ended.code == 2
    assert "FOLDER/<class>/*.jpg" in ended.err


def test_the_answers_of_an_image_are_its_labels_from_best_to_worst() -> None:
    cat = Prediction("cat", 3, 0.7)
    timings = Timings(0.0, 0.0, 0.0, 1)
    assert answers_of(Classified([cat, Prediction("dog", 5, 0.2)], timings, "miss", cat)) == [
        "cat",
        "dog",
    ]
    assert answers_of(ImageError("undecodable_image", "broken")) == []


def test_a_failing_engine_gives_no_result() -> None:
    with pytest.raises(EngineFailed):
        answers_of(EngineFailed("the engine gave no usable answer"))


def test_per_class_figures_and_the_confusion_matrix_on_request(
    repvgg: Callable[..., Any], labelled: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    ask = ("evaluate", "--model", tiny_bundle, "--data", labelled, "--per-class")
    lines = repvgg(*ask).out.splitlines()
    assert lines[0].split() == ["class", "images", "top-1", "most", "often", "taken", "for"]
    assert lines[-1].startswith("23 images: top-1 ")
    picture = tmp_path / "confusion.png"
    classes = json.loads(repvgg(*ask, "--json", "--confusion-matrix", picture).out)["classes"]
    assert sum(entry["images"] for entry in classes) == 23
    assert sum(entry["images"] * entry["top1"] for entry in classes) == pytest.approx(21)
    assert sum(entry["confused_times"] for entry in classes) == 2
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"


@pytest.mark.parametrize("name", ["none/matrix.png", "matrix.unknown"])
def test_a_picture_that_cannot_be_written_is_wrong_usage(
    repvgg: Callable[..., Any], labelled: Path, tiny_bundle: Path, tmp_path: Path, name: str
) -> None:
    ended = repvgg("evaluate", "--model", tiny_bundle, "--data", labelled, "--confusion-matrix", tmp_path / name)
    assert ended.code == 2
    assert "--confusion-matrix" in ended.err


@pytest.mark.parametrize("flag", ["--confusion-matrix", "--reliability-diagram"])
def test_a_chart_without_matplotlib_is_rejected_before_the_work_begins(
    repvgg: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ended = repvgg("evaluate", "--model", tiny_bundle, "--data", "not looked at", flag, tmp_path / "a.png")
    assert ended.code == 2
    assert ended.err == "repvgg evaluate: charts need matplotlib: pip install 'repvgg[charts]'\n"
