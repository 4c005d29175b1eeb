"""The promises of service.evaluation.confidence, and `repvgg evaluate --fit-confidence`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.manifest import Confidence
from models.scores.confidence import confidence_of
from models.scores.topk import softmax
from models.store import open_bundle
from service.errors import UsageError
from service.evaluation.calibration import Scores
from service.evaluation.confidence import fit

CLASSES = 6


def images(count: int, seed: int, foreign: int = 0) -> Scores:
    """Right in 80 % of the cases. Foreign images are as certain as known ones, but all their logits are lower, which
    the softmax does not show."""
    rng = np.random.default_rng(seed)
    scores = Scores([f"class {number}" for number in range(CLASSES)], 1.0)
    logits = rng.normal(0, 2.5, (count + foreign, CLASSES)).astype(np.float32)
    shares = softmax(logits[:count]).cumsum(axis=1)
    truths = (rng.random((count, 1)) > shares).sum(axis=1)
    for truth, row in zip(truths, logits, strict=False):
        scores.add(scores.labels[truth], row)
    for row in logits[count:]:
        scores.add_foreign(row - np.float32(4.0))
    return scores


def confident(logits: NDArray[np.float32], found: Confidence) -> NDArray[np.bool_]:
    reached: NDArray[np.bool_] = confidence_of(logits, 1.0, found.weights) >= found.threshold
    return reached


def test_the_threshold_keeps_its_share_of_other_right_answers() -> None:
    found, others = fit(images(3000, 1), 1.0, "fp32"), images(3000, 2)
    right = others.logits.argmax(axis=1) == others.truths
    assert confident(others.logits, found)[right].mean() == pytest.approx(0.95, abs=0.015)
    assert (found.images, found.foreign_images, found.refused, found.weights) == (3000, 0, None, None)
    assert found.kept == pytest.approx(0.95, abs=0.001)


def test_answers_above_the_threshold_are_right_as_often_as_stated() -> None:
    found, others = fit(images(3000, 1), 1.0, "fp32", accuracy=0.9), images(3000, 2)
    reached = confident(others.logits, found)
    right = others.logits.argmax(axis=1) == others.truths
    assert right.mean() < 0.85
    assert right[reached].mean() == pytest.approx(0.9, abs=0.02)
    assert reached.mean() == pytest.approx(found.answered, abs=0.03)


def test_with_foreign_images_evidence_is_weighed_if_that_refuses_more() -> None:
    found, others = fit(images(2000, 1, foreign=300), 1.0, "fp32"), images(2000, 2, foreign=300)
    right = others.logits.argmax(axis=1) == others.truths
    assert found.weights is not None
    assert len(found.weights) == 1 + 2 * CLASSES
    assert confident(others.logits, found)[right].mean() == pytest.approx(0.95, abs=0.02)
    refused = 1 - confident(others.foreign_logits, found).mean()
    assert refused == pytest.approx(found.refused, abs=0.07)
    assert refused > 2 * (1 - confident(others.foreign_logits, fit(images(2000, 1), 1.0, "fp32")).mean())


def test_the_embedding_is_weighed_where_it_tells_more() -> None:
    """Foreign images have the logits of known ones, and another embedding."""
    rng = np.random.default_rng(4)

    def with_embeddings(seed: int) -> Scores:
        plain, both = images(1500, seed, foreign=300), Scores([f"class {number}" for number in range(CLASSES)], 1.0)
        for truth, row in zip(plain.truths, plain.logits, strict=True):
            both.add(both.labels[truth], row, rng.normal(0, 1, 8).astype(np.float32))
        for row in images(300, seed + 10).logits:
            both.add_foreign(row, rng.normal(1, 1, 8).astype(np.float32))
        return both

    found, others = fit(with_embeddings(1), 1.0, "fp32"), with_embeddings(2)
    assert (found.weights, found.embedding_weights) != (None, None)
    assert found.all_weights is not None
    assert len(found.all_weights) == 1 + 2 * CLASSES + 8
    assert others.embeddings is not None
    right = others.logits.argmax(axis=1) == others.truths
    kept, let_in = (
        confidence_of(logits, 1.0, found.all_weights, embedding) >= found.threshold
        for logits, embedding in zip((others.logits, others.foreign_logits), others.embeddings, strict=True)
    )
    assert kept[right].mean() == pytest.approx(0.95, abs=0.02)
    assert found.refused == pytest.approx(1 - let_in.mean(), abs=0.07)
    assert found.refused > 0.7


def test_foreign_images_that_cannot_be_told_apart_change_no_weights() -> None:
    same = images(2000, 1)
    for row in images(400, 3).logits:
        same.add_foreign(row)
    found = fit(same, 1.0, "fp32")
    if found.weights is not None:  # by chance a little better on these: but hardly better on others
        assert found.refused == pytest.approx(0.1, abs=0.1)


@pytest.mark.parametrize("aim", [{"keep": 0.999}, {"accuracy": 0.9999}])
def test_too_few_images_give_no_threshold(aim: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"no threshold holds for these 100 images"):
        fit(images(100, 1), 1.0, "fp32", **aim)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, draw_image: Callable[..., bytes]) -> Path:
    """Drawings, by chance in some class's folder; and foreign ones beside them."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(60):
        place = folder / "data" / ("airplane", "bird", "cat", "dog")[seed % 4]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{seed}.jpg").write_bytes(draw_image(seed))
    (folder / "foreign").mkdir()
    for seed in range(60, 70):
        (folder / "foreign" / f"{seed}.jpg").write_bytes(draw_image(seed))
    (folder / "foreign" / "broken.jpg").write_bytes(b"no image")
    return folder


def test_fitting_on_the_command_line_writes_a_version(
    repvgg: Callable[..., Any], tiny_bundle: Path, labelled: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "store" / "tiny" / "2"
    ask = ("evaluate", "--model", tiny_bundle, "--data", labelled / "data", "--kept", "0.5")
    ended = repvgg(*ask, "--fit-confidence", folder, "--foreign", labelled / "foreign", "--json")
    assert ended.code == 0, ended.err
    facts, manifest = json.loads(ended.out), open_bundle(folder).manifest
    assert manifest.confidence is not None
    assert facts["confidence"] == json.loads(manifest.confidence.model_dump_json())
    assert manifest.temperature == facts["calibration"]["fitted_temperature"]
    assert (manifest.confidence.images, manifest.confidence.foreign_images) == (60, 10)
    assert manifest.confidence.precision == "fp32"
    assert "broken.jpg: left out: it cannot be decoded" in ended.err
    # A new temperature alone outdates it.
    newer = tmp_path / "store" / "tiny" / "3"
    repvgg("evaluate", "--model", folder, "--data", labelled / "data", "--write-temperature", newer)
    assert open_bundle(newer).manifest.confidence is None
    assert "confidence" not in (newer / "manifest.json").read_text()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--kept", "0.9"], "--kept needs --fit-confidence NAME/VERSION"),
        (["--foreign", "x"], "--foreign needs --fit-confidence NAME/VERSION"),
        (["--fit-confidence", "tiny/9", "--kept", "95"], "--kept 95 is not between 0 and 1"),
        (["--fit-confidence", "tiny/9", "--write-temperature", "tiny/8"], "leave out --write-temperature"),
        (["--fit-confidence", "."], "--fit-confidence . exists; give a new version"),
        (["--fit-confidence", "tiny/9", "--shard", "0/2"], "calibration needs the scores of all images at once"),
    ],
)
def test_wrong_usage_is_rejected_before_the_work_begins(
    repvgg: Callable[..., Any], tiny_bundle: Path, labelled: Path, flags: list[str], words: str
) -> None:
    ended = repvgg("evaluate", "--model", tiny_bundle, "--data", labelled / "data", *flags)
    assert ended.code == 2
    assert words in ended.err
