import numpy as np
import pytest
from PIL import Image, ImageColor

from training.errors import TrainingError
from training.run.curves import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, grid, line_chart, save, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 6, [0, 1, 2, 3, 4, 5, 6]),
        (0, 0.1, [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (3, 3, [1.5, 2, 2.5, 3, 3.5, 4, 4.5]),
        (0, 0, [-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6]),
    ],
)
def test_ticks_are_even_round_numbers_around_the_data(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def where(image, colour):
    """Rows and columns of the chart's inside that have the colour."""
    pixels = np.asarray(image)[TOP - 1 : BOTTOM + 2]
    return np.nonzero((pixels == ImageColor.getrgb(colour)).all(axis=2))


def test_a_series_goes_from_corner_to_corner_of_its_axes():
    image = line_chart("rising", "x", {"y": [(0, 0), (10, 5)]})
    rows, columns = where(image, COLOURS[0])
    assert abs(columns.min() - LEFT) <= 2
    assert abs(columns.max() - RIGHT) <= 2
    assert rows[columns.argmin()] > rows[columns.argmax()], "more is further up"


def test_every_series_has_its_own_colour():
    image = line_chart("two", "x", {"first": [(0, 0), (1, 1)], "second": [(0, 1), (1, 0)]})
    assert all(where(image, colour)[0].size > 100 for colour in COLOURS[:2])


def test_a_chart_without_points_is_an_empty_frame():
    assert where(line_chart("nothing", "x", {"y": []}), COLOURS[0])[0].size == 0


def test_a_series_of_one_point_is_a_dot():
    rows, columns = where(line_chart("one", "x", {"y": [(3, 7)]}), COLOURS[0])
    assert 10 < rows.size < 50
    assert np.ptp(rows) < 8
    assert np.ptp(columns) < 8


def test_charts_stand_row_by_row():
    charts = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in COLOURS[:3]]
    sheet = grid(charts, columns=2)
    assert sheet.size == (2 * WIDTH, 2 * HEIGHT)
    for index, (x, y) in enumerate(((0, 0), (WIDTH, 0), (0, HEIGHT))):
        assert sheet.getpixel((x + 5, y + 5)) == ImageColor.getrgb(COLOURS[index])


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match=r"file/a\.png cannot be written"):
        save(Image.new("RGB", (1, 1)), tmp_path / "file" / "a.png")
