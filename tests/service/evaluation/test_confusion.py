from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from models import charts
from service.evaluation.confusion import NAMED, ClassFigures, Confusion, draw, table


@pytest.fixture
def confusion() -> Confusion:
    """Three cats (one taken for a dog, one without an answer), two dogs, no ship."""
    counts = {("cat", "cat"): 1, ("cat", "dog"): 1, ("cat", None): 1, ("dog", "dog"): 2}
    return Confusion(["cat", "dog", "ship"], Counter(counts))


def test_each_class_with_images_has_its_figures(confusion: Confusion) -> None:
    assert list(confusion.classes()) == [
        ClassFigures("cat", 3, 1 / 3, "dog", 1),
        ClassFigures("dog", 2, 1.0, None, 0),
    ]


def test_the_table_has_one_line_per_class(confusion: Confusion) -> None:
    assert table(confusion).splitlines() == [
        "class  images   top-1  most often taken for",
        "cat         3   33.3%  dog (1)",
        "dog         2  100.0%",
    ]


def cells_of(axes: Axes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of the right and of the wrong answers, NaN where a cell belongs to the other."""
    right, wrong = (np.ma.filled(image.get_array(), np.nan) for image in axes.images)
    return right, wrong


def test_a_cell_is_its_share_of_the_images_of_its_class(confusion: Confusion) -> None:
    right, wrong = cells_of(draw(confusion, "three classes").axes[0])
    assert right.diagonal().tolist() == [0.5, 1.0, 0.0]  # of the answered ones
    assert wrong[0, 1] == 0.5
    assert np.isnan(wrong.diagonal()).all()
    assert np.nansum(wrong) == 0.5


def test_right_answers_are_green_and_wrong_ones_red_and_both_have_a_key(confusion: Confusion) -> None:
    axes, *keys = draw(confusion, "three classes").axes
    right, wrong = (image.to_rgba(1.0) for image in axes.images)
    assert (to_hex(right), to_hex(wrong)) == (charts.ACCENT, charts.ERROR)
    assert [key.get_ylabel().split("\n")[0] for key in keys] == ["right answers", "wrong answers"]


def test_names_counts_and_axes_are_written(confusion: Confusion) -> None:
    axes = draw(confusion, "three classes").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "ship"]
    assert {(*text.get_position(), text.get_text()) for text in axes.texts} == {
        (0, 0, "1"),
        (1, 0, "1"),
        (1, 1, "2"),
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answer", "true class")


def test_long_names_keep_both_their_ends() -> None:
    labels = [f"a class with a long name, number {number}" for number in range(2)]
    axes = draw(Confusion(labels, Counter({(labels[0], labels[0]): 1})), "two").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a class wi… number 0", "a class wi… number 1"]


@pytest.mark.parametrize("classes", [2, NAMED, NAMED + 1, 1000])
def test_everything_fits_into_a_picture_of_any_number_of_classes(classes: int) -> None:
    labels = [f"a long name of class {number}" for number in range(classes)]
    figure = draw(Confusion(labels, Counter({(label, label): 1 for label in labels})), "many")
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * charts.DOTS_PER_INCH
    assert max(width, height) < 4000
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box is not None
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= min(text.get_window_extent().y0 for text in figure.texts)
    cells = figure.axes[0].get_window_extent().width / figure.dpi * charts.DOTS_PER_INCH / classes
    assert cells >= 1, "every cell has a pixel"
    if classes == NAMED + 1:
        assert "(class number)" in figure.axes[0].get_xlabel()
