import json
import sys

import pytest
from PIL import Image

from training.errors import TrainingError
from training.run.record.journal import Journal, draw, read


def line(epoch, **more):
    values = {"loss": 2 / epoch, "train_top1": 0.5, "lr": 0.1, "images_per_second": 100.0, "seconds": 10.0 * epoch}
    return {"epoch": epoch, **values, "val_top1": 0.4, "val_top5": 0.9} | more


def epochs_of(folder):
    return [json.loads(text)["epoch"] for text in (folder / "log.jsonl").read_text().splitlines()]


def test_the_log_has_one_line_per_epoch_however_often_the_run_was_interrupted(tmp_path):
    journal = Journal(tmp_path, 0)
    for epoch in (1, 2, 3):
        journal.add(line(epoch), "net")
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')  # by a kill
    again = Journal(tmp_path, 2)  # the third epoch was not saved, or a copy of before it was put back
    assert epochs_of(tmp_path) == [1, 2]
    again.add(line(3), "net")
    assert epochs_of(tmp_path) == [1, 2, 3]
    assert Journal(tmp_path, 3).lines == [line(1), line(2), line(3)]


def test_a_truncated_last_line_is_ignored(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}')
    assert read(tmp_path / "log.jsonl") == [{"epoch": 1}]


def test_an_unwritable_folder_is_reported_before_the_first_epoch(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match=r"file/net/log\.jsonl cannot be written"):
        Journal(tmp_path / "file" / "net", 0)


def test_an_invalid_log_is_named_and_left_alone(tmp_path):
    (tmp_path / "log.jsonl").write_text("epoch one\n")
    with pytest.raises(
        TrainingError, match=r"log\.jsonl is not a log with one JSON object per line .*repair or remove it"
    ):
        Journal(tmp_path, 0)
    assert (tmp_path / "log.jsonl").read_text() == "epoch one\n"


def test_the_time_left_is_estimated_from_the_latest_epochs_including_those_before_an_interruption(tmp_path):
    for epoch, seconds in enumerate([9000, 9000, 10, 20, 10, 500], start=1):  # a busy machine, then a quiet one
        journal = Journal(tmp_path, epoch - 1)
        journal.add(line(epoch) | {"seconds": seconds}, "net")
    assert journal.seconds_left(7) == 20
    assert journal.seconds_left(8) == 40
    assert journal.seconds_left(6) == 0


def drawn(lines):
    """Title and name of each line of the curves -> its points."""
    figure = draw("net", lines)
    return {
        (axes.get_title("left"), line.get_label()): [tuple(point) for point in line.get_xydata().tolist()]
        for axes in figure.axes
        for line in axes.lines
    }


def test_the_curves_are_drawn_from_the_whole_log_after_a_resume(tmp_path):
    before = Journal(tmp_path, 0)
    before.add(line(1), "net")
    before.complete_curves()
    first = (tmp_path / "curves.png").read_bytes()
    journal = Journal(tmp_path, 1)
    journal.add(line(2, val_top1=0.6, train_top1=0.8), "net")
    journal.complete_curves()
    assert (tmp_path / "curves.png").read_bytes() != first
    with Image.open(tmp_path / "curves.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (2800, 1440))
    assert drawn(journal.lines) == {
        ("Loss", "training"): [(1, 2), (2, 1)],
        ("Accuracy", "training top-1"): [(1, 50), (2, 80)],
        ("Accuracy", "validation top-1"): [(1, 40), (2, 60)],
        ("Accuracy", "validation top-5"): [(1, 90), (2, 90)],
        ("Learning rate", "at the end of the epoch"): [(1, 0.1), (2, 0.1)],
        ("Speed", "training"): [(1, 100), (2, 100)],
    }


def test_the_curves_of_short_epochs_are_drawn_every_ten_seconds_at_most(tmp_path):
    now_s = [0.0]
    journal, picture = Journal(tmp_path, 0, clock=lambda: now_s[0]), tmp_path / "curves.png"
    for epoch, (at_s, is_drawn) in enumerate([(9, False), (11, True), (20, False), (21, True)], start=1):
        picture.unlink(missing_ok=True)
        now_s[0] = at_s
        journal.add(line(epoch), "net")
        assert picture.exists() == is_drawn, f"at {at_s} s"
    picture.unlink()
    journal.complete_curves()
    assert not picture.exists(), "nothing was missing"
    journal.add(line(5), "net")
    journal.complete_curves()
    assert picture.exists()


def test_epochs_that_were_not_evaluated_have_no_point():
    lines = [line(1), line(2), line(3, val_top1=0.6)]
    for key in ("val_top1", "val_top5"):
        del lines[1][key]
    assert drawn(lines)["Accuracy", "validation top-1"] == [(1, 40), (3, 60)]
    for unevaluated in lines:
        unevaluated.pop("val_top1", None)
    assert drawn(lines)["Accuracy", "validation top-1"] == []


def test_a_run_without_matplotlib_says_once_that_there_will_be_no_curves_and_continues(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    journal = Journal(tmp_path, 0)
    assert capsys.readouterr().out == (
        "there will be no curves.png: charts need matplotlib: pip install 'repvgg[charts]'\n"
    )
    for epoch in (1, 2):
        journal.add(line(epoch), "net")
    journal.complete_curves()
    assert capsys.readouterr().out == ""
    assert epochs_of(tmp_path) == [1, 2]
    assert not (tmp_path / "curves.png").exists()
