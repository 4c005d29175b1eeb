import pytest
from PIL import Image

from models import charts
from training.errors import TrainingError
from training.run.record.curves import Chart, draw, save


def lines_of(axes):
    """Name -> the line of that name."""
    return {line.get_label(): line for line in axes.lines}


def test_every_point_lies_inside_its_axes():
    (axes,) = draw("run", "epoch", [Chart("rising", "m", {"y": [(0, 0), (10, 5)]})]).axes
    assert axes.get_xlim()[0] <= 0 < 10 <= axes.get_xlim()[1]
    assert axes.get_ylim()[0] <= 0 < 5 <= axes.get_ylim()[1]
    assert lines_of(axes)["y"].get_xydata().tolist() == [[0, 0], [10, 5]]


def test_axes_have_a_title_names_and_units():
    (axes,) = draw("run", "epoch", [Chart("Speed", "images per second", {"training": [(1, 1)]})]).axes
    assert (axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel()) == ("Speed", "epoch", "images per second")


def test_every_series_has_its_own_colour_and_the_first_lies_on_top():
    chart = Chart("two", "m", {"first": [(0, 0), (1, 1)], "second": [(0, 1), (1, 0)]})
    (axes,) = draw("run", "epoch", [chart]).axes
    assert [line.get_label() for line in axes.lines] == ["second", "first"]
    assert [text.get_text() for text in axes.get_legend().texts] == ["first", "second"]
    assert {name: line.get_color() for name, line in lines_of(axes).items()} == {
        "first": charts.SERIES[0],
        "second": charts.SERIES[1],
    }


def test_a_series_of_one_point_is_a_dot():
    series = {"one": [(3, 7)], "two": [(3, 7), (4, 8)]}
    (axes,) = draw("run", "epoch", [Chart("dots", "m", series)]).axes
    assert (lines_of(axes)["one"].get_marker(), lines_of(axes)["two"].get_marker()) == ("o", "")


def test_epochs_are_whole_numbers():
    figure = draw("run", "epoch", [Chart("short", "m", {"y": [(1, 7), (2, 8)]})])
    figure.draw_without_rendering()
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())


def test_charts_are_laid_out_row_by_row(tmp_path):
    figure = draw("run", "epoch", [Chart(name, "m", {"y": []}) for name in "abc"])
    figure.draw_without_rendering()
    a, b, c = (axes.get_position() for axes in figure.axes)
    assert a.y0 == pytest.approx(b.y0)
    assert a.x1 < b.x0
    assert a.x0 == pytest.approx(c.x0)
    assert a.y0 > c.y1


def test_a_chart_is_saved_as_a_png_in_a_folder_that_is_created(tmp_path):
    save(draw("run", "epoch", [Chart("rising", "m", {"y": [(0, 0), (10, 5)]})]), tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1400, 760))


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match=r"file/a\.png cannot be written"):
        save(draw("run", "epoch", [Chart("none", "m", {"y": []})]), tmp_path / "file" / "a.png")
