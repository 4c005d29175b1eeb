from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.scores.topk import softmax
from models.store import open_bundle
from service.evaluation.calibration import BINS, Bin, Scores, expected_error
from service.evaluation.reliability import draw, draw_bins

LABELS = [f"class {number}" for number in range(5)]


def drawn(images: int, temperature: float, seed: int = 0) -> tuple[NDArray[np.float32], list[int]]:
    """Logits, and true classes that were drawn with the probabilities of these logits at a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (images, len(LABELS))).astype(np.float32)
    shares = softmax(logits, temperature).cumsum(axis=1)
    return logits, [int(truth) for truth in (rng.random((images, 1)) > shares).sum(axis=1)]


def scores_of(logits: NDArray[np.float32], truths: Sequence[int], labels: Sequence[str] = LABELS) -> Scores:
    scores = Scores(labels, temperature=1.0)
    for row, truth in zip(logits, truths, strict=True):
        scores.add(labels[truth], row)
    return scores


def test_the_error_is_0_when_perfectly_calibrated_and_half_when_certain_and_half_wrong() -> None:
    assert expected_error([Bin(80, 0.8, 0.8), Bin(20, 0.3, 0.3), Bin(0, 0.0, 0.0)]) == 0.0
    assert expected_error([Bin(100, 1.0, 0.5)]) == 0.5
    assert expected_error([Bin(30, 0.6, 0.5), Bin(10, 0.9, 0.7)]) == pytest.approx((30 * 0.1 + 10 * 0.2) / 40)
    assert expected_error([]) == 0.0


def test_bins_are_equal_and_closed_above() -> None:
    """As equation 3 of the paper has them: a score of exactly 1/15 belongs to the first."""
    scores = scores_of(np.zeros((4, 5), np.float32), [0, 1, 2, 0])
    bins = scores.bins(1.0)
    assert len(bins) == BINS
    third = next(number for number, one in enumerate(bins) if one.images)
    assert (third, bins[third]) == (2, Bin(4, pytest.approx(0.2), 0.5))  # 0.2 = 3/15


def test_the_error_falls_with_the_fitted_temperature() -> None:
    calibration = scores_of(*drawn(3000, temperature=2.0)).calibration()
    assert calibration.ece > 0.1
    assert calibration.fitted_ece is not None
    assert calibration.fitted_ece < 0.03


def test_scores_served_with_a_temperature_lead_to_the_same_fit() -> None:
    plain = scores_of(*drawn(500, temperature=2.0))
    warm = replace(plain, temperature=1.7)
    assert warm.calibration().fitted_temperature == plain.calibration().fitted_temperature
    assert warm.calibration().ece == expected_error(plain.bins(1.7))


def test_if_two_classes_share_a_label_the_better_one_counts() -> None:
    scores = Scores(["crane", "crane"], 1.0)
    scores.add("crane", np.array([0.1, 0.9], np.float32))
    assert sum(one.images * one.accuracy for one in scores.bins(1.0)) == 1


@pytest.mark.parametrize("right", [True, False])
def test_there_is_no_temperature_if_none_fits(right: bool) -> None:
    logits, _ = drawn(50, 1.0)
    truths = logits.argmax(axis=1) if right else logits.argmin(axis=1)
    calibration = scores_of(logits, truths).calibration()
    assert calibration.fitted_temperature is None
    assert "no temperature fits" in str(calibration)


def test_a_score_of_0_does_not_become_an_infinite_logit() -> None:
    scores = scores_of(np.array([[2000.0, 0, 0, 0, 0]], np.float32), [1])
    assert np.isfinite(scores.logits).all()


def test_the_diagram_shows_accuracy_gap_and_images_of_each_bin() -> None:
    bins = [Bin(0, 0.0, 0.0)] * 12 + [Bin(30, 0.85, 0.9), Bin(0, 0.0, 0.0), Bin(10, 0.99, 0.5)]
    above, below = draw_bins({"one": bins}).axes
    accuracies, gaps = (
        [round(value, 6) for bar in container.patches for value in (bar.get_y(), bar.get_height())]
        for container in above.containers
    )
    assert accuracies == [0, 90, 0, 50]  # bottom and height of each bar
    assert gaps == [90, -5, 50, 49]
    assert [bar.get_height() for bar in below.patches] == pytest.approx([0] * 12 + [75, 0, 25])
    assert above.patches[0].get_x() == pytest.approx(100 * 12 / 15)
    assert (below.get_xlabel(), above.get_ylabel()) == ("score of the best class (%)", "accuracy (% of the images)")


def test_the_diagram_has_both_temperatures_where_one_fits_and_their_errors() -> None:
    scores = scores_of(*drawn(3000, temperature=2.0))
    calibration = scores.calibration()
    titles = [axes.get_title("left") for axes in draw(scores, calibration).axes[:2]]
    assert titles == [
        f"as served, temperature 1: ECE {calibration.ece:.2%}",
        f"fitted, temperature {calibration.fitted_temperature:.4g}: ECE {calibration.fitted_ece:.2%}",
    ]
    unfitted = replace(calibration, fitted_temperature=None, fitted_ece=None)
    assert len(draw(scores, unfitted).axes) == 2


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, draw_image: Callable[..., bytes]) -> Path:
    """Drawings, by chance in some class's folder: a model can neither be always right nor always wrong on them."""
    data = tmp_path_factory.mktemp("data")
    for seed in range(40):
        folder = data / ("airplane", "bird", "cat", "dog")[seed % 4]
        folder.mkdir(exist_ok=True)
        (folder / f"{seed}.jpg").write_bytes(draw_image(seed))
    (data / "cat" / "broken.jpg").write_bytes(b"no image")
    return data


def test_calibration_on_the_command_line(
    repvgg: Callable[..., Any], tiny_bundle: Path, labelled: Path, tmp_path: Path
) -> None:
    ask = ("evaluate", "--model", tiny_bundle, "--data", labelled)
    plain = json.loads(repvgg(*ask, "--json").out)
    folder, picture = tmp_path / "store" / "tiny" / "2", tmp_path / "reliability.png"
    ended = repvgg(*ask, "--reliability-diagram", picture, "--write-temperature", folder, "--json")
    facts = json.loads(ended.out)
    found = facts.pop("calibration")
    assert facts.keys() == plain.keys()
    assert (facts["images"], facts["top1"], facts["top5"]) == (plain["images"], plain["top1"], plain["top5"])
    assert (found["images"], found["temperature"]) == (40, 1.0)  # the broken one has no score
    assert open_bundle(folder).manifest.temperature == found["fitted_temperature"]
    with Image.open(picture) as shown:
        assert shown.format == "PNG"
    again = repvgg("evaluate", "--model", folder, "--data", labelled, "--calibration").out.splitlines()[-1]
    assert again.startswith(f"calibration of 40 images: ECE {found['fitted_ece']:.2%} (15 bins) with temperature ")


def test_a_temperature_that_is_written_into_a_signed_bundle_leaves_it_unsigned_and_says_so(
    repvgg: Callable[..., Any], tiny_bundle: Path, labelled: Path, tmp_path: Path
) -> None:
    signed, folder = tmp_path / "tiny" / "1", tmp_path / "tiny" / "2"
    shutil.copytree(tiny_bundle, signed)
    (signed / "manifest.json.sig").write_text("AAAA\n")
    ended = repvgg("evaluate", "--model", signed, "--data", labelled, "--write-temperature", folder)
    assert f"{folder} is not signed, because its manifest is new" in ended.err
    assert not (folder / "manifest.json.sig").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--calibration", "--shard", "0/2"], "calibration needs the scores of all images at once"),
        (["--reliability-diagram", "none/x.png"], "--reliability-diagram: there is no folder none"),
        (["--reliability-diagram", "x.jpg"], "--reliability-diagram x.jpg: the name must end in .png or .svg"),
        (["--write-temperature", "."], "--write-temperature . exists; give a new version"),
    ],
)
def test_wrong_usage_is_rejected_before_the_work_begins(
    repvgg: Callable[..., Any], tiny_bundle: Path, labelled: Path, flags: list[str], words: str
) -> None:
    ended = repvgg("evaluate", "--model", tiny_bundle, "--data", labelled, *flags)
    assert ended.code == 2
    assert words in ended.err


def test_no_temperature_is_written_if_none_fits(
    repvgg: Callable[..., Any], tiny_bundle: Path, draw_image: Callable[..., bytes], tmp_path: Path
) -> None:
    label = json.loads(repvgg("classify", "--model", tiny_bundle, "--json", _saved(tmp_path, draw_image(0))).out)
    data = tmp_path / "data" / label["predictions"][0]["label"]
    data.mkdir(parents=True)
    (tmp_path / "one.jpg").rename(data / "one.jpg")
    folder = tmp_path / "tiny" / "2"
    ended = repvgg("evaluate", "--model", tiny_bundle, "--data", data.parent, "--write-temperature", folder)
    assert ended.code == 2
    assert "nothing is written" in ended.err
    assert not folder.exists()


def _saved(folder: Path, encoded: bytes) -> Path:
    path = folder / "one.jpg"
    path.write_bytes(encoded)
    return path
