import json

import numpy as np
import pytest
from PIL import Image, ImageColor

from training.errors import TrainingError
from training.run import curves as charts
from training.run.journal import Journal, curves, read


def line(epoch, **more):
    values = {"loss": 2 / epoch, "train_top1": 0.5, "lr": 0.1, "images_per_second": 100.0, "seconds": 10.0 * epoch}
    return {"epoch": epoch, **values, "val_top1": 0.4, "val_top5": 0.9} | more


def epochs_of(folder):
    return [json.loads(text)["epoch"] for text in (folder / "log.jsonl").read_text().splitlines()]


def test_the_log_has_one_line_an_epoch_however_often_the_run_was_cut_off(tmp_path):
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


def test_a_last_line_without_its_end_is_no_line(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}')
    assert read(tmp_path / "log.jsonl") == [{"epoch": 1}]


def test_a_folder_that_cannot_be_written_to_is_known_before_the_first_epoch(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match=r"file/net/log\.jsonl cannot be written"):
        Journal(tmp_path / "file" / "net", 0)


def test_a_log_that_is_none_is_named_and_left_alone(tmp_path):
    (tmp_path / "log.jsonl").write_text("epoch one\n")
    with pytest.raises(TrainingError, match=r"log\.jsonl is not a log of one JSON object a line .*mend or remove it"):
        Journal(tmp_path, 0)
    assert (tmp_path / "log.jsonl").read_text() == "epoch one\n"


def test_the_time_left_follows_from_the_latest_epochs_those_of_earlier_runs_too(tmp_path):
    for epoch, seconds in enumerate([9000, 9000, 10, 20, 10, 500], start=1):  # a busy machine, then a quiet one
        journal = Journal(tmp_path, epoch - 1)
        journal.add(line(epoch) | {"seconds": seconds}, "net")
    assert journal.seconds_left(7) == 20
    assert journal.seconds_left(8) == 40
    assert journal.seconds_left(6) == 0


def count(image, colour, column, row):
    """Pixels of that colour in the chart of that place in the grid."""
    left, top = column * charts.WIDTH, row * charts.HEIGHT
    pixels = np.asarray(image)[top + charts.TOP : top + charts.BOTTOM, left + charts.LEFT : left + charts.RIGHT]
    return int((pixels == ImageColor.getrgb(colour)).all(axis=2).sum())


def test_the_curves_are_drawn_from_the_whole_log_after_a_resume(tmp_path):
    Journal(tmp_path, 0).add(line(1), "net")
    with Image.open(tmp_path / "curves.png") as first:
        assert count(first, charts.COLOURS[0], 0, 0) < 50, "a dot"
    Journal(tmp_path, 1).add(line(2, val_top1=0.6, train_top1=0.8), "net")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (2 * charts.WIDTH, 2 * charts.HEIGHT)
        for column, row in ((0, 0), (1, 0), (0, 1), (1, 1)):
            assert count(picture, charts.COLOURS[0], column, row) > 500, (column, row)
        assert all(count(picture, colour, 1, 0) > 500 for colour in charts.COLOURS[:3])


def test_epochs_that_were_not_evaluated_have_no_point(tmp_path):
    lines = [line(1), line(2), line(3, val_top1=0.6)]
    for key in ("val_top1", "val_top5"):
        del lines[1][key]
    assert count(curves("net", lines), charts.COLOURS[1], 1, 0) > 500
    for unevaluated in lines:
        unevaluated.pop("val_top1", None)
    assert count(curves("net", lines), charts.COLOURS[1], 1, 0) == 0
