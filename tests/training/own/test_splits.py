"""The photos that fine-tuning is compared on, and the comparison's only dependency of its own."""

import os
import subprocess
import sys

import pytest

from benchmarks.splits import lay_out


@pytest.fixture
def folders(tmp_path):
    """Six photos of two classes, and two other photos of each."""
    for folder, count in (("photos", 6), ("others", 2)):
        for name in ("cat", "dog"):
            (tmp_path / folder / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / folder / name / f"{number}.jpg").write_text(f"{folder} {name} {number}")
    return tmp_path


def contents(folder):
    return {f"{path.parent.name}: {path.read_text()}" for path in folder.rglob("*.jpg")}


def test_a_third_of_each_class_judges_and_a_seed_draws_the_same_photos_again(folders):
    for out, seed in (("first", 1), ("again", 1), ("other", 2)):
        lay_out(folders / "photos", folders / out, seed)
    train, val = contents(folders / "first" / "train"), contents(folders / "first" / "val")
    assert (len(train), len(val), len(train | val)) == (8, 4, 12)
    assert contents(folders / "again" / "val") == val
    assert contents(folders / "other" / "val") != val


def test_other_photos_judge_what_was_learnt_from_all_or_from_some(folders):
    lay_out(folders / "photos", folders / "all", 1, folders / "others")
    lay_out(folders / "photos", folders / "some", 1, folders / "others", per_class=3)
    assert contents(folders / "all" / "train") == contents(folders / "photos")
    assert len(contents(folders / "some" / "train")) == 6
    assert contents(folders / "some" / "val") == contents(folders / "all" / "val") == contents(folders / "others")


def test_too_few_photos_are_an_error(folders):
    with pytest.raises(ValueError, match="cat has 6 photos: 7 to train on"):
        lay_out(folders / "photos", folders / "out", 1, folders / "others", per_class=7)
    with pytest.raises(ValueError, match="6 to train on leave 0 to judge by"):
        lay_out(folders / "photos", folders / "out", 1, per_class=6)


def test_without_pytorch_the_comparison_says_what_it_needs(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError")
    command = [sys.executable, "-m", "benchmarks.transfer_comparison", "--photos", "x", "--bundle", "y"]
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install torch" in done.stderr
    assert "Traceback" not in done.stderr
