"""The confusion matrix: images by true and predicted class, as a table and as a chart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models import charts
from service.observe.logs import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 40  # classes up to which the chart has room for names and counts
CELL_IN, SMALLEST_IN, LARGEST_IN = 0.38, 4.0, 11.0  # inches: a cell with a count, and the whole matrix
LETTER_IN, KEYS_IN = 0.08, 2.0  # of a name; of the two keys to the colours
KEY_TICKS = (0, 0.1, 0.25, 0.5, 1)
LETTERS = 20  # of a class's name


@dataclass(frozen=True)
class ClassFigures:
    """`top1` is a fraction of the class's `images`; `confused_with` is its most frequent wrong answer, if any."""

    label: str
    images: int
    top1: float
    confused_with: str | None
    confused_times: int


@dataclass(frozen=True)
class Confusion:
    """`counts` maps (true label, predicted label) to images; the prediction is None if there was no answer."""

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
    """One line per class."""
    figures = list(confusion.classes())
    width = max([len("class"), *(len(visible(entry.label)) for entry in figures)])
    lines = [f"{'class':<{width}}  images   top-1  most often taken for"]
    for entry in figures:
        taken = f"{visible(entry.confused_with)} ({entry.confused_times})" if entry.confused_with else ""
        lines.append(f"{visible(entry.label):<{width}}  {entry.images:>6}  {entry.top1:>6.1%}  {taken}".rstrip())
    return "\n".join(lines)


def draw(confusion: Confusion, subtitle: str) -> Figure:
    """A row per true class and a column per answer; the colour of a cell shows its share of the images in its row.

    Up to NAMED classes are labelled with names and counts; more are numbered, and a cell is a few pixels wide.
    """
    named = len(confusion.labels) <= NAMED
    names = [_shortened(label) for label in confusion.labels] if named else []
    side_in = max(SMALLEST_IN, CELL_IN * len(names)) if named else LARGEST_IN
    names_in = LETTER_IN * max(map(len, names), default=0)
    with charts.style():
        figure = charts.new_figure(side_in + names_in + KEYS_IN, side_in + names_in + 1, "Confusion matrix", subtitle)
        grid = figure.add_gridspec(2, 2, width_ratios=(40, 1))
        axes, keys = figure.add_subplot(grid[:, 0]), [figure.add_subplot(grid[row, 1]) for row in (0, 1)]
        axes.grid(visible=False)
        counts = _counts(confusion)
        _draw_cells(axes, keys, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
        if named:
            axes.set(xlabel="answer", ylabel="true class")
            _write_names(axes, names)
            _write_counts(axes, counts)
        else:
            axes.set(xlabel="answer (class number)", ylabel="true class (class number)")
    return figure


def _counts(confusion: Confusion) -> NDArray[np.int64]:
    """(K, K): images by true class and answer; images without an answer are left out."""
    numbers = {label: number for number, label in enumerate(confusion.labels)}
    counts = np.zeros((len(numbers), len(numbers)), np.int64)
    for (truth, answer), images in confusion.counts.items():
        if answer is not None:
            counts[numbers[truth], numbers[answer]] += images
    return counts


def _draw_cells(axes: Axes, keys: Sequence[Axes], shares: NDArray[np.float64]) -> None:
    """Right answers on a linear scale, wrong ones on a scale that shows even a few per cent; `keys` explain them."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.ticker import PercentFormatter

    right = np.eye(len(shares), dtype=bool)
    faint = 1 / 2 if len(shares) <= NAMED else 1 / 3
    scales = (("right answers", charts.ACCENT, right, 1.0), ("wrong answers", charts.ERROR, ~right, faint))
    for key, (name, colour, shown, gamma) in zip(keys, scales, strict=True):
        image = axes.imshow(
            np.ma.masked_array(shares, ~shown),
            cmap=LinearSegmentedColormap.from_list(name, [charts.SURFACE, colour]),
            norm=PowerNorm(gamma, 0, 1),
            interpolation="nearest",
            aspect="auto",
        )
        bar = key.figure.colorbar(image, cax=key, ticks=KEY_TICKS, format=PercentFormatter(1))
        bar.set_label(f"{name}\n(share of true class)")


def _write_names(axes: Axes, names: Sequence[str]) -> None:
    places, edges = range(len(names)), np.arange(0.5, len(names) - 1)
    axes.set_xticks(places, names, rotation=90)
    axes.set_yticks(places, names)
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color=charts.SURFACE, linewidth=1.5)


def _write_counts(axes: Axes, counts: NDArray[np.int64]) -> None:
    most = np.maximum(counts.sum(axis=1), 1)
    for row, column in np.argwhere(counts):
        ink = charts.SURFACE if counts[row, column] > most[row] / 2 else charts.TEXT
        axes.text(
            column, row, str(counts[row, column]), color=ink, fontsize=9, ha="center", va="center", in_layout=False
        )


def _shortened(label: str) -> str:
    """Omits the middle, since names often differ only at the end."""
    return label if len(label) <= LETTERS else f"{label[: LETTERS // 2]}…{label[-(LETTERS // 2 - 1) :]}"
