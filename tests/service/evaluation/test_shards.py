from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.errors import UsageError
from service.evaluation.shards import Part, Shard, merge


def part(index: int, count: int, **changes: Any) -> Part:
    """One of two images right, both among the best five."""
    facts = {"model": "tiny/1", "engine": "fake", "precision": "fp32", "pixels": "exact", "labels": ["cat", "dog"]}
    figures = {"images": 2, "right_in_5": 2, "images_per_second": 10.0}
    counts = [("cat", "cat", 1), ("dog", None, 1)]
    return Part(shard=Shard(index=index, count=count), **{**facts, **figures, "counts": counts, **changes})


@pytest.mark.parametrize("count", [1, 2, 3, 10, 12])
def test_the_parts_do_not_overlap_and_cover_every_image(count: int) -> None:
    images = list(range(10))
    parts = [Shard(index=index, count=count).of(images) for index in range(count)]
    assert sorted(image for mine in parts for image in mine) == images
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "1/0", "a/b", "1/2/3", ""])
def test_an_invalid_shard_explains_the_format(text: str) -> None:
    with pytest.raises(UsageError, match="expected I/N with I in"):
        Shard.parse(text)


def test_merging_adds_up() -> None:
    whole = merge([part(1, 2), part(0, 2, images=1, right_in_5=0, counts=[("cat", "dog", 1)])])
    assert (whole.images, whole.top1, whole.top5) == (3, 1 / 3, 2 / 3)
    assert whole.images_per_second == 20.0
    assert whole.confusion.counts == Counter({("cat", "cat"): 1, ("cat", "dog"): 1, ("dog", None): 1})


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([part(0, 3), part(2, 3)], "missing: shard 1/3"),
        ([part(0, 2), part(1, 2), part(1, 2)], "surplus: shard 1/2"),
        ([part(0, 1), part(1, 2)], "surplus: shard 1/2"),
        ([part(0, 2), part(1, 2, engine="onnxruntime")], "differ in engine: fake and onnxruntime"),
        ([part(0, 2), part(1, 2, model="tiny/2")], "differ in model: tiny/1 and tiny/2"),
    ],
)
def test_merging_names_the_mismatch(parts: list[Part], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        merge(parts)


def test_shards_of_a_folder_merge_to_the_evaluation_of_all(
    repvgg: Callable[..., Any], photos: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    ask = ("evaluate", "--model", tiny_bundle, "--data", photos, "--json")
    whole = json.loads(repvgg(*ask, "--per-class").out)
    files = [tmp_path / f"{index}.json" for index in range(4)]
    for index, file in enumerate(files):
        file.write_text(repvgg(*ask, "--shard", f"{index}/4").out)
    merged = json.loads(repvgg("evaluate", "--merge", *files, "--json", "--per-class").out)
    for facts in (whole, merged):
        assert facts.pop("images_per_second") > 0
    assert merged == whole
    assert repvgg("evaluate", "--merge", *files[1:]).err == "repvgg evaluate: --merge: missing: shard 0/4\n"


def test_a_shard_without_an_image_is_a_part_too(repvgg: Callable[..., Any], photos: Path, tiny_bundle: Path) -> None:
    ended = repvgg("evaluate", "--model", tiny_bundle, "--data", photos, "--json", "--shard", "39/40")
    assert (
        "class" in repvgg("evaluate", "--model", tiny_bundle, "--data", photos, "--shard", "39/40", "--per-class").out
    )
    facts = json.loads(ended.out)
    assert (facts["images"], facts["top1"], facts["counts"]) == (0, 0.0, [])


@pytest.mark.parametrize("content", [None, "", "no json", "{}"])
def test_a_file_that_is_not_a_part_is_named(repvgg: Callable[..., Any], tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "part.json"
    if content is not None:
        file.write_text(content)
    ended = repvgg("evaluate", "--merge", file)
    assert ended.code == 2
    assert f"--merge {file}" in ended.err
