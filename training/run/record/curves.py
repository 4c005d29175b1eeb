"""Line charts of a run as PNG.

1. the axes span the data, with some room around it, and have units;
2. a series of one point is a dot;
3. a folder that cannot be written to is an error that names it, and a file is written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models import charts
from training.storage.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]

WIDTH_IN, HEIGHT_IN = 7.0, 3.4  # of one chart
COLUMNS = 2
NO_CURVES = f"there will be no curves.png: {charts.NOT_INSTALLED}"


@dataclass(frozen=True)
class Chart:
    """`unit`: what the y axis counts; `series` maps a name to its (x, y) points, in the order of x."""

    title: str
    unit: str
    series: Mapping[str, Points]


def draw(title: str, x_name: str, drawn: Sequence[Chart]) -> Figure:
    """The charts side by side, row by row, under one title."""
    columns = min(COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    with charts.style():
        figure = charts.new_figure(columns * WIDTH_IN, rows * HEIGHT_IN + 0.4, title)
        for number, chart in enumerate(drawn, start=1):
            _draw_lines(figure.add_subplot(rows, columns, number), x_name, chart)
    return figure


def _draw_lines(axes: Axes, x_name: str, chart: Chart) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set(title=chart.title, xlabel=x_name, ylabel=chart.unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # there are no half epochs
    for number, (name, points) in reversed([*enumerate(chart.series.items())]):  # so that the first lies on top
        dot = "o" if len(points) == 1 else ""
        axes.plot([x for x, _ in points], [y for _, y in points], marker=dot, color=charts.SERIES[number], label=name)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], loc="lower right", bbox_to_anchor=(1, 1), ncols=len(names), borderpad=0)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG. Raises TrainingError that names the path."""
    write_whole(path, charts.encode(figure))
