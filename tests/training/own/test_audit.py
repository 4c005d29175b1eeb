import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from training import start
from training.own.audit import COLUMNS


@pytest.fixture
def audit(tiny_bundle, tmp_path, capsys, monkeypatch):
    """(photos) -> exit code, stdout, the rows of suggestions.csv by path."""
    monkeypatch.chdir(tmp_path)

    def audited(photos, *flags):
        code = start.main([str(photos), "--audit", "--from", str(tiny_bundle), *flags])
        file = tmp_path / "runs" / f"audit-{photos.stem}" / "suggestions.csv"
        rows = list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []
        return code, capsys.readouterr().out, {row["path"]: row for row in rows}

    return audited


@pytest.fixture
def faulty(photos):
    """One of each fault."""
    (photos / "lime/broken.jpg").write_bytes((photos / "lime/000.jpg").read_bytes()[:300])
    shutil.copy(photos / "lime/001.jpg", photos / "lime/zz_copy.jpg")
    Image.open(photos / "plum/002.jpg").resize((60, 45)).save(photos / "plum/zz_small.jpg", quality=60)
    shutil.copy(photos / "plum/003.jpg", photos / "lime/zz_plum.jpg")
    Image.new("RGB", (90, 90), (2, 2, 2)).save(photos / "lemon/black.jpg")
    Image.open(photos / "lemon/004.jpg").resize((400, 40)).save(photos / "lemon/thin.jpg")
    shutil.move(photos / "plum/019.jpg", photos / "lemon/planted.jpg")
    return photos


def test_each_fault_is_found_and_only_what_is_safe_is_suggested_outright(audit, faulty, tmp_path):
    code, said, rows = audit(faulty)
    assert code == 0
    assert (rows["lime/broken.jpg"]["action"], rows["lime/zz_copy.jpg"]["action"]) == ("drop", "drop")
    assert rows["lime/zz_copy.jpg"]["reason"].startswith("equal to lime/001.jpg")
    assert rows["plum/zz_small.jpg"]["action"] == "check"
    assert rows["plum/003.jpg"]["reason"].startswith("equal to lime/zz_plum.jpg, which has the label lime")
    assert rows["lemon/black.jpg"]["reason"].startswith("nearly black")
    assert "only the middle" in rows["lemon/thin.jpg"]["reason"]
    assert rows["lemon/planted.jpg"]["new_label"] == "plum"
    assert "suggestions: " in said
    assert not (tmp_path / "store").exists()


def test_planted_wrong_labels_are_among_the_first_tenth(audit, photos):
    """5 % flipped, in features as good as these."""
    rng = np.random.default_rng(0)
    planted = set()
    for number in rng.choice(20, 3, replace=False):
        shutil.move(photos / f"plum/{number:03}.jpg", photos / f"lime/moved{number}.jpg")
        planted.add(f"lime/moved{number}.jpg")
    _, _, rows = audit(photos)
    doubted = {path for path, row in rows.items() if "looks like" in row["reason"]}
    assert len(doubted) <= 6
    assert planted <= doubted


def test_the_next_run_does_what_the_column_action_says_and_nothing_else(audit, photos, tmp_path):
    file = tmp_path / "mine.csv"
    rows = [
        ("lime/000.jpg", "lime", "drop", "", ""),
        ("lime/001.jpg", "lime", "relabel", "plum", ""),
        ("lime/002.jpg", "lime", "check", "plum", "looks like plum"),
        ("lime/003.jpg", "lime", "keep", "plum", "looks like plum"),
    ]
    with file.open("w", newline="") as table:
        csv.writer(table).writerows([COLUMNS, *rows])
    code, said, _ = audit(photos, "--suggestions", str(file))
    assert code == 0
    assert "1 photos dropped, 1 labels changed" in said
    assert "59 photos of 3 classes: lemon 20, lime 18, plum 21" in said


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("lime/000.jpg,lime,delete,,", "line 2: action 'delete' is not one of drop, relabel, check, keep"),
        ("lime/nothing.jpg,lime,drop,,", "nothing.jpg is not among the photos"),
        ("lime/000.jpg,lime,relabel,,", "line 2: new_label is empty"),
    ],
)
def test_suggestions_that_cannot_be_followed_are_errors_that_name_the_line(
    audit, photos, tmp_path, capsys, row, message, tiny_bundle
):
    (tmp_path / "mine.csv").write_text(f"{','.join(COLUMNS)}\n{row}\n")
    flags = ["--audit", "--from", str(tiny_bundle), "--suggestions", str(tmp_path / "mine.csv")]
    assert start.main([str(photos), *flags]) == 66
    assert message in capsys.readouterr().err


def test_too_few_photos_are_audited_without_doubting_labels(audit, draw_photos, tmp_path):
    draw_photos(tmp_path / "few", 1)
    code, said, _ = audit(tmp_path / "few")
    assert code == 0
    assert "labels are not checked" in said
