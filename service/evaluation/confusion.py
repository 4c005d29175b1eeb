"""What a model takes for what: a count for each pair of true and predicted class, as a table and as a picture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from service.observe.logs import visible

NAMED = 40  # classes up to which the picture has room for names and counts
CELL, MARGIN, FONT_SIZE = 44, 130, 12  # pixels
LETTERS = 14  # of a class's name that fit into the margin


@dataclass(frozen=True)
class ClassFigures:
    """`top1` is a fraction of the class's `images`; `confused_with` is the wrong label it gets most often, if any."""

    label: str
    images: int
    top1: float
    confused_with: str | None
    confused_times: int


@dataclass(frozen=True)
class Confusion:
    """`counts` maps (true label, predicted label) to images; the prediction is None where there was no answer."""

    labels: Sequence[str]
    counts: Counter[tuple[str, str | None]]

    def of_class(self, truth: str) -> Counter[str | None]:
        return Counter({predicted: count for (true, predicted), count in self.counts.items() if true == truth})

    def classes(self) -> Iterator[ClassFigures]:
        """The classes that have images, in the order of the labels."""
        for label in self.labels:
            row = self.of_class(label)
            if images := row.total():
                wrong = [(predicted, count) for predicted, count in row.most_common() if predicted not in (label, None)]
                other, times = wrong[0] if wrong else (None, 0)
                yield ClassFigures(label, images, row[label] / images, other, times)


def table(confusion: Confusion) -> str:
    """A line a class."""
    figures = list(confusion.classes())
    width = max([len("class"), *(len(visible(entry.label)) for entry in figures)])
    lines = [f"{'class':<{width}}  images   top-1  most often taken for"]
    for entry in figures:
        taken = f"{visible(entry.confused_with)} ({entry.confused_times})" if entry.confused_with else ""
        lines.append(f"{visible(entry.label):<{width}}  {entry.images:>6}  {entry.top1:>6.1%}  {taken}".rstrip())
    return "\n".join(lines)


def draw(confusion: Confusion, title: str) -> Image.Image:
    """RGB picture: a row for each true class, a column for each predicted one, darker for a greater share of the row.

    With more than NAMED classes a cell is a few pixels and has no text.
    """
    named = len(confusion.labels) <= NAMED
    cell = CELL if named else max(1, math.ceil(NAMED * CELL / len(confusion.labels)))
    margin = MARGIN if named else 40
    side = margin + cell * len(confusion.labels) + 10
    picture = Image.new("RGB", (side, side), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT_SIZE)
    pen.text((10, 10), title, "black", ImageFont.load_default(FONT_SIZE + 2))
    for row, truth in enumerate(confusion.labels):
        counts = confusion.of_class(truth)
        total, top = counts.total() or 1, margin + row * cell
        for column, predicted in enumerate(confusion.labels):
            share, left = counts[predicted] / total, margin + column * cell
            pen.rectangle((left, top, left + cell - 1, top + cell - 1), _colour(share, right=predicted == truth))
            if named and counts[predicted]:
                ink = "white" if share > 0.5 else "black"
                pen.text((left + cell / 2, top + cell / 2), str(counts[predicted]), ink, font, "mm")
        if named:
            name = truth if len(truth) <= LETTERS else f"{truth[: LETTERS - 1]}…"
            pen.text((margin - 6, top + cell / 2), name, "black", font, "rm")
            upwards = _turned(name, font)
            picture.paste(upwards, (margin + row * cell + (cell - FONT_SIZE) // 2, margin - 4 - upwards.height))
    pen.text((10, 30 if named else 22), "rows: true class, columns: answer", "black", font)
    return picture


def _colour(share: float, *, right: bool) -> tuple[int, int, int]:
    """White for no image; blue for right, red for wrong answers, which show from a few in a hundred on."""
    strength = share if right else math.sqrt(share)
    dark = (31, 95, 168) if right else (200, 60, 30)
    red, green, blue = (round(255 + (value - 255) * strength) for value in dark)
    return red, green, blue


def _turned(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """`text` from the bottom upwards."""
    label = Image.new("RGB", (math.ceil(font.getlength(text)), FONT_SIZE + 4), "white")
    ImageDraw.Draw(label).text((0, 0), text, "black", font)
    return label.rotate(90, expand=True)
