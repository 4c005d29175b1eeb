from __future__ import annotations

from collections import Counter

import pytest

from service.evaluation.confusion import CELL, MARGIN, ClassFigures, Confusion, draw, table

BLUE, RED, WHITE = (31, 95, 168), (200, 60, 30), (255, 255, 255)


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


def test_the_table_has_a_line_a_class(confusion: Confusion) -> None:
    assert table(confusion).splitlines() == [
        "class  images   top-1  most often taken for",
        "cat         3   33.3%  dog (1)",
        "dog         2  100.0%",
    ]


def test_the_picture_shows_right_answers_in_blue_and_wrong_ones_in_red(confusion: Confusion) -> None:
    picture = draw(confusion, "three classes")

    def cell(row: int, column: int) -> object:
        return picture.getpixel((MARGIN + column * CELL + 2, MARGIN + row * CELL + 2))

    assert cell(1, 1) == BLUE  # every dog
    assert cell(2, 2) == WHITE  # no ship
    red, green, blue = cell(0, 1)  # type: ignore[misc]
    assert red > green
    assert red > blue


def test_a_thousand_classes_fit_into_a_picture() -> None:
    labels = [f"class {number}" for number in range(1000)]
    picture = draw(Confusion(labels, Counter({(label, label): 1 for label in labels})), "many")
    assert picture.width < 2100
    assert picture.getpixel((41, 41)) == BLUE
