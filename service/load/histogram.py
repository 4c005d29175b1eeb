"""The latencies of a load as a chart: bars on a logarithmic axis, as a PNG or as an HTML page."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from models import charts
from service.load.figures import Figures
from service.load.reports import headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".html")
WIDTH_IN, HEIGHT_IN = 9.6, 4.8
BAR, DEADLINE = charts.ACCENT, charts.MUTED
PERCENTILES = {"p50": charts.SERIES[1], "p99": charts.ERROR}
TICKS_MS = tuple(digit * 10.0**power for power in range(-2, 6) for digit in (1, 2, 5))
FEWEST_TICKS = 3
NARROWEST = 2.0  # the last latency on the axis as a multiple of the first


def encode(figures: Figures, suffix: str) -> bytes:
    """The content of a file with one of SUFFIXES. Raises ValueError if there was no answer."""
    figure = draw(figures)
    return charts.encode(figure) if suffix == ".png" else _page(figure, headline(figures))


def draw(figures: Figures) -> Figure:
    """A bar for each bucket, and lines for the percentiles and the deadline. Raises ValueError without answers."""
    if not figures.histogram or figures.latency_ms is None:
        raise ValueError("there was no answer, so there is no histogram")
    with charts.style():
        title = f"Latency of {figures.answers:,} answers"
        figure = charts.new_figure(WIDTH_IN, HEIGHT_IN, title, headline(figures))
        axes = figure.add_subplot()
        axes.set(xscale="log", xlabel="latency (ms)", ylabel="answers")
        axes.grid(visible=False, axis="x")
        _draw_bars(axes, figures.histogram)
        for name, colour in PERCENTILES.items():
            value = getattr(figures.latency_ms, name)
            axes.axvline(value, color=colour, label=f"{name} {value:.1f} ms")
        _draw_deadline(axes, figures.conditions.deadline_ms)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(PERCENTILES) + 1)
    return figure


def _draw_bars(axes: Axes, histogram: list[tuple[float, int]]) -> None:
    from matplotlib.ticker import MaxNLocator

    bounds_ms = [upper for upper, _ in histogram]
    ratio = bounds_ms[1] / bounds_ms[0] if len(bounds_ms) > 1 else 1.09
    edges_ms = [bounds_ms[0] / ratio, *bounds_ms]
    widths_ms = [upper - lower for lower, upper in zip(edges_ms, bounds_ms, strict=False)]
    axes.bar(edges_ms[:-1], [count for _, count in histogram], widths_ms, align="edge", color=BAR, edgecolor="white")
    widening = max(1.0, math.sqrt(NARROWEST * edges_ms[0] / edges_ms[-1]))
    axes.set_xlim(edges_ms[0] / widening, edges_ms[-1] * widening)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    _set_ticks(axes.xaxis, *axes.get_xlim())


def _set_ticks(axis: XAxis, first_ms: float, last_ms: float) -> None:
    """1, 2, 5, 10, ... if a few of them lie on the axis, otherwise round numbers between its ends."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    ticks_ms = [tick for tick in TICKS_MS if first_ms <= tick <= last_ms]
    axis.set_major_locator(FixedLocator(ticks_ms) if len(ticks_ms) >= FEWEST_TICKS else MaxNLocator(6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def _draw_deadline(axes: Axes, deadline_ms: int) -> None:
    """A line if it lies on the axis; the legend names it in any case."""
    first_ms, last_ms = axes.get_xlim()
    label = f"deadline {deadline_ms} ms"
    if first_ms <= deadline_ms <= last_ms:
        axes.axvline(deadline_ms, color=DEADLINE, linestyle="--", label=label)
    else:
        axes.plot([], [], color=DEADLINE, linestyle="--", label=label)


def _page(figure: Figure, title: str) -> bytes:
    """HTML with the chart as SVG inside; it loads nothing from elsewhere."""
    svg = charts.encode(figure, ".svg").decode()
    title = html.escape(title)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body style="background: {charts.GROUND}">
<figure role="img" aria-label="{title}">
{svg[svg.index("<svg") :]}</figure>
</body></html>
""".encode()
