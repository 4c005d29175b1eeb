"""Draw the charts of docs/performance.md from its own tables: `python scripts/docs_charts.py` writes docs/charts/*.svg.

1. a chart shows what a table of the page says: no figure is typed here;
2. the same page gives the same bytes (with the same matplotlib), so that a test can detect a stale chart;
3. one file serves both themes: its colours are CSS variables that follow `prefers-color-scheme`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/performance.md"
CHARTS = ROOT / "docs/charts"

WIDTH_IN, ROW_IN, MARGIN_IN = 7.6, 0.34, 0.95
# What is drawn in the first colour becomes the variable, which has the second in light and the third in dark.
COLOURS = {
    "ink": ("#010101", "#20262b", "#e9e7e2"),
    "muted": ("#020202", "#5b636b", "#a1a9b1"),
    "ours": ("#030303", "#2b6a5b", "#74c7ae"),
    "other": ("#040404", "#a7a196", "#6f6a61"),
}
INK, MUTED, OURS, OTHER = (drawn for drawn, _, _ in COLOURS.values())
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "repvgg",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "ytick.color": INK,
}

Row = Mapping[str, str]


@dataclass(frozen=True)
class Panel:
    """Bars for one column of a table."""

    title: str
    column: str


@dataclass(frozen=True)
class Chart:
    """`section` of the page has the table; rows whose name begins with `ours` are highlighted."""

    section: str
    panels: Sequence[Panel]
    ours: str = "ours"


CHART_FILES = {
    "engines.svg": Chart(
        "Engines",
        (Panel("1 thread, images/s", "1 thread, batch 1"), Panel("2 threads, images/s", "2 threads, batch 1")),
        ours="",
    ),
    "servers.svg": Chart(
        "Beside other servers",
        (
            Panel("32 clients: images/s, more is better", "32 clients: images/s"),
            Panel("1 client: median ms, less is better", "1 client: p50 ms"),
        ),
    ),
    "overload.svg": Chart(
        "Overload",
        (
            Panel("answers in time, of the capacity", "1.5x load: in time / capacity"),
            Panel("p99 of the answers, ms (deadline: 1000)", "p99 ms of answers"),
        ),
    ),
}


def main() -> None:
    CHARTS.mkdir(exist_ok=True)
    for name, svg in charts().items():
        (CHARTS / name).write_text(svg, encoding="utf-8")


def charts() -> dict[str, str]:
    """File name -> SVG."""
    page = PAGE.read_text(encoding="utf-8")
    return {name: svg_of(chart, list(table(page, chart.section))) for name, chart in CHART_FILES.items()}


def svg_of(chart: Chart, rows: Sequence[Row]) -> str:
    with matplotlib.rc_context(STYLE):
        return drawn(chart, rows)


def table(page: str, section: str) -> Iterator[Row]:
    """The rows of the first table below the heading `section`, by column."""
    _, _, text = page.partition(f"\n## {section}\n")
    lines = re.findall(r"^\|(.*)\|$", text.partition("\n## ")[0], re.MULTILINE)
    head, _, *rows = ([cell.strip() for cell in line.split("|")] for line in lines)
    return (dict(zip(head, row, strict=True)) for row in rows)


def drawn(chart: Chart, rows: Sequence[Row]) -> str:
    figure = Figure(figsize=(WIDTH_IN, MARGIN_IN + ROW_IN * len(rows)), layout="constrained")
    (axes,) = figure.subplots(1, len(chart.panels), sharey=True, squeeze=False)
    names = [next(iter(row.values())) for row in rows]
    colours = [OURS if name.startswith(chart.ours) else OTHER for name in names]
    for panel, axis in zip(chart.panels, axes, strict=True):
        bars(axis, panel, names, [first_number(row[panel.column]) for row in rows], colours)
    axes[0].invert_yaxis()
    return themed(written(figure))


def first_number(cell: str) -> str:
    """'61.2 (60.5 to 65.0)' -> '61.2'."""
    return cell.split()[0]


def bars(axis: Axes, panel: Panel, names: Sequence[str], figures: Sequence[str], colours: Sequence[str]) -> None:
    values = [float(figure) for figure in figures]
    axis.bar_label(axis.barh(names, values, height=0.66, color=colours), figures, padding=4, color=MUTED)
    axis.set_title(panel.title, pad=10, color=INK)
    axis.set_xlim(0, max(values) * 1.18)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.set_xticks([])


def written(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return out.getvalue()


def themed(svg: str) -> str:
    for name, (drawn_colour, _, _) in COLOURS.items():
        svg = svg.replace(drawn_colour, f"var(--{name})")
    light, dark = ("; ".join(f"--{name}: {row[i]}" for name, row in COLOURS.items()) for i in (1, 2))
    style = (
        f"<style>svg {{ {light} }} @media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }} "
        "text { font-family: system-ui, sans-serif !important }</style>"
    )
    start = svg.index("<svg")
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[start:], flags=re.DOTALL)
    return re.sub(r"(<svg[^>]*>)", rf"\1\n {style}", body, count=1)


if __name__ == "__main__":
    main()
