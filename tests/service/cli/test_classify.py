from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.manifest import Confidence
from models.store import open_bundle
from models.versions import write_version


def test_a_table_names_each_file_and_its_best_labels(
    repvgg: Callable[..., Any], photos: Path, tiny_bundle: Path
) -> None:
    ended = repvgg("classify", "--model", tiny_bundle, "--top-k", 2, photos)
    lines = ended.out.splitlines()
    assert ended.code == 0
    assert [line.split()[0] for line in lines] == [
        *[str(photos / f"cat/{number}.jpg") for number in range(5)],
        *[str(photos / f"dog/{number}.PNG") for number in range(4)],
    ]
    _, label, score, second, lower = lines[0].split()
    assert {label, second} <= set(open_bundle(tiny_bundle).labels)
    assert 1 >= float(score) >= float(lower) >= 0


def test_fast_pixels_need_a_bundle_that_allows_them(
    repvgg: Callable[..., Any], large_photo: bytes, tiny_bundle: Path, fast_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "large.jpg").write_bytes(large_photo)
    refused = repvgg("classify", "--model", tiny_bundle, "--pixels", "fast", tmp_path)
    assert (refused.code, refused.out) == (78, "")
    assert refused.err.startswith("repvgg classify: --pixels=fast: the manifest gives no accuracy of fast pixels")
    fast, exact = (
        repvgg("classify", "--model", fast_bundle, "--json", "--pixels", p, tmp_path) for p in ("fast", "exact")
    )
    assert (fast.code, exact.code) == (0, 0)
    assert fast.out != exact.out


def test_json_lines_have_the_fields_of_an_http_result_and_the_path(
    repvgg: Callable[..., Any], photos: Path, tiny_bundle: Path
) -> None:
    ended = repvgg("classify", "--model", tiny_bundle, "--json", photos / "dog")
    results = [json.loads(line) for line in ended.out.splitlines()]
    assert [set(result) for result in results] == [{"index", "filename", "predictions", "path"}] * 4
    assert [result["index"] for result in results] == [0, 1, 2, 3]
    assert results[2]["filename"] == "2.PNG"
    assert results[2]["path"] == str(photos / "dog" / "2.PNG")
    assert [set(prediction) for prediction in results[0]["predictions"]] == [{"label", "class_id", "score"}] * 5


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_bad_image_is_reported_and_the_others_are_classified(
    repvgg: Callable[..., Any], photos: Path, tiny_bundle: Path, form: list[str]
) -> None:
    good, bad = photos / "cat" / "0.jpg", photos / "cat" / "notes.txt"
    ended = repvgg("classify", "--model", tiny_bundle, *form, bad, good)
    assert ended.code == 1
    first, second = ended.out.splitlines()
    assert "0.jpg" in first
    assert "not a readable image" in second
    assert ("undecodable_image" in second) is bool(form)


def test_top_k_out_of_range_is_wrong_usage(repvgg: Callable[..., Any], photos: Path, tiny_bundle: Path) -> None:
    ended = repvgg("classify", "--model", tiny_bundle, "--top-k", 11, photos)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "repvgg classify: --top-k 11 is not in 1..10 (the number of classes)\n"


def test_settings_come_from_the_environment_too(repvgg: Callable[..., Any], photos: Path, tiny_bundle: Path) -> None:
    ended = repvgg("classify", photos, environ={"REPVGG_MODEL": str(tiny_bundle), "REPVGG_ENGINE": "fake"})
    assert ended.code == 0
    assert "the fake engine answers" in ended.err


def test_no_image_is_wrong_usage(repvgg: Callable[..., Any], tmp_path: Path) -> None:
    assert repvgg("classify", tmp_path / "none.jpg").code == 2


def test_an_answer_that_is_not_sure_says_so_and_a_set_follows_it(
    repvgg: Callable[..., Any], photos: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    measured = {"accuracy": 0.9, "answered": 0.6, "kept": 0.9, "precision": "fp32", "images": 100}
    fitted = Confidence(fitted_at="2026-11-29T12:00:00Z", threshold=1.0, quantiles={0.9: 1.0}, **measured)
    folder = write_version(open_bundle(tiny_bundle), tmp_path / "tiny" / "2", confidence=fitted).folder
    ask = ("classify", "--model", folder, "--coverage", "0.9", "--min-score", "0.99", photos / "cat" / "0.jpg")
    assert repvgg(*ask).out.split("  ")[1:2] == ["not sure:"]
    assert "  one of " in repvgg(*ask).out
    result = json.loads(repvgg(*ask, "--json").out)
    assert (result["confident"], result["set"]["coverage"], result["predictions"]) == (False, 0.9, [])
    assert sorted(result["set"]["labels"]) == sorted(open_bundle(tiny_bundle).labels)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--coverage", "0.9"], "repvgg classify: --coverage: tiny 1 has no quantiles"),
        (["--min-score", "2"], "repvgg classify: --min-score=2 is not a number from 0 to 1"),
    ],
)
def test_what_cannot_be_asked_is_wrong_usage(
    repvgg: Callable[..., Any], photos: Path, tiny_bundle: Path, flags: list[str], says: str
) -> None:
    ended = repvgg("classify", "--model", tiny_bundle, *flags, photos)
    assert ended.code == 2
    assert ended.err.startswith(says)
