"""Draw the Grafana dashboard as an SVG from what a Prometheus has scraped.

    python docs/draw_dashboard.py --prometheus http://127.0.0.1:9090 --minutes 4 --out docs/dashboard.svg

For the documentation only; everywhere else Grafana draws it. Queries, titles, units and layout are the dashboard's.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models import charts

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "docker/grafana/dashboards/repvgg.json"
SCRAPE_S = 2
POINTS = 75
COLUMNS, WIDTH_IN, ROW_IN = 24, 16.0, 0.36  # Grafana's grid: columns; inches of the whole width, of a row's height
TITLE_IN, LEFT_IN, RIGHT_IN, ABOVE_IN, BELOW_IN, LEGEND_IN = 0.4, 0.65, 0.15, 0.35, 0.85, 0.33
FONT_SIZE, LETTERS_PER_INCH, HANDLE = 9, 13, 5  # of legends; letters that a handle takes

Panel = dict[str, Any]
Line = list[tuple[float, float]]  # (minutes, value)
Series = dict[str, Line]  # by legend

# Unit of the dashboard -> how values are written on an axis.
UNITS: dict[str, Callable[[float], str]] = {
    "percentunit": lambda value: f"{value:.0%}",
    "bytes": lambda value: f"{value / 2**20:.0f} MiB",
    "s": lambda value: f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms",
    "short": lambda value: f"{value / 1000:.3g} k" if value >= 1000 else f"{value:.3g}",
    "reqps": lambda value: f"{value:.3g}/s",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--minutes", type=float, default=4, help="how far back to draw from now (default %(default)g)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/dashboard.svg")
    arguments = parser.parse_args()
    dashboard = json.loads(DASHBOARD.read_text())
    with httpx.Client(base_url=arguments.prometheus, timeout=60) as client:
        found = {
            panel["id"]: fetch(client, panel, arguments.minutes)
            for panel in dashboard["panels"]
            if panel["type"] != "row"
        }
    svg = charts.encode(draw(dashboard, found, arguments.minutes), ".svg")
    arguments.out.write_bytes(re.sub(rb"(\d\.\d)\d+", rb"\1", svg))  # a tenth of a point is exact enough: half the size


def fetch(client: httpx.Client, panel: Panel, minutes: float) -> Series:
    """Every series of the panel over the last `minutes`."""
    end = time.time()
    start = end - 60 * minutes
    step = (end - start) / POINTS
    found: Series = {}
    for target in panel["targets"]:
        interval = f"{math.ceil(max(4 * SCRAPE_S, step + SCRAPE_S))}s"  # as Grafana computes it
        query = target["expr"].replace("$__rate_interval", interval).replace("$job", ".+").replace("$instance", ".+")
        parameters = {"query": query, "start": start, "end": end, "step": step}
        reply = client.get("/api/v1/query_range", params=parameters).raise_for_status().json()
        for series in reply["data"]["result"]:
            legend = target["legendFormat"]
            for name, value in series["metric"].items():
                legend = legend.replace("{{" + name + "}}", value)
            found[legend] = [
                ((moment - start) / 60, float(value)) for moment, value in series["values"] if value != "NaN"
            ]
    return dict(sorted(found.items()))


def draw(dashboard: dict[str, Any], found: dict[int, Series], minutes: float) -> Figure:
    """The panels in their places; `found`: the series by the id of their panel."""
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    height_in = TITLE_IN + ROW_IN * max(place["y"] + place["h"] for place in places) + LEGEND_IN
    with charts.style():
        figure = charts.new_figure(WIDTH_IN, height_in, dashboard["title"])
        figure.set_layout_engine("none")  # every place is known, and arranging so many axes takes a minute
        for panel in dashboard["panels"]:
            left_in = panel["gridPos"]["x"] * WIDTH_IN / COLUMNS
            top_in = height_in - TITLE_IN - ROW_IN * panel["gridPos"]["y"]
            if panel["type"] == "row":
                place = (left_in + 0.1) / WIDTH_IN, (top_in - 0.8 * ROW_IN) / height_in
                figure.text(*place, panel["title"], fontsize=12, fontweight="bold")
            else:
                axes = figure.add_axes(frame_of(panel["gridPos"], left_in, top_in, height_in))
                draw_panel(axes, panel, found[panel["id"]], minutes)
    return figure


def frame_of(
    place: dict[str, int], left_in: float, top_in: float, height_in: float
) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a panel's axes, as fractions of the figure."""
    wide_in, high_in = place["w"] * WIDTH_IN / COLUMNS, place["h"] * ROW_IN
    return (
        (left_in + LEFT_IN) / WIDTH_IN,
        (top_in - high_in + BELOW_IN) / height_in,
        (wide_in - LEFT_IN - RIGHT_IN) / WIDTH_IN,
        (high_in - BELOW_IN - ABOVE_IN) / height_in,
    )


def draw_panel(axes: Axes, panel: Panel, series: Series, minutes: float) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    axes.set_title(panel["title"])
    axes.tick_params(labelsize=FONT_SIZE)
    draw_series(axes, series, stacked="stacking" in defaults["custom"])
    for step in defaults.get("thresholds", {}).get("steps", [])[1:]:
        axes.axhline(step["value"], color=charts.ERROR, linestyle="--", linewidth=1)
    top = defaults.get("max") or axes.get_ylim()[1]
    axes.set(xlim=(0, minutes), ylim=(0, top if series else 1))
    axes.set_xlabel("minutes", fontsize=FONT_SIZE, labelpad=1)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda value, _: UNITS.get(defaults["unit"], "{:.3g}".format)(value))
    draw_legend(axes)


def draw_series(axes: Axes, series: Series, *, stacked: bool) -> None:
    """Lines, or areas on top of each other in the order of the legend."""
    below: Counter[float] = Counter()
    for number, (name, line) in enumerate(series.items()):
        minutes, values = [minute for minute, _ in line], [value for _, value in line]
        colour = charts.SERIES[number % len(charts.SERIES)]
        if stacked:
            bottom = [below[minute] for minute in minutes]
            below.update(dict(line))
            top = [below[minute] for minute in minutes]
            axes.fill_between(minutes, bottom, top, color=colour, alpha=0.85, linewidth=0, label=name)
        else:
            axes.plot(minutes, values, color=colour, linewidth=1.2, label=name)


def draw_legend(axes: Axes) -> None:
    """Under the axes, as much of it as fits into two lines."""
    handles, names = axes.get_legend_handles_labels()
    if not names:
        return
    box = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted())
    letters = int(LETTERS_PER_INCH * (box.width + LEFT_IN))
    names = [name if len(name) <= letters - HANDLE else f"{name[: letters - HANDLE - 1]}…" for name in names]
    columns = max(1, letters // (HANDLE + max(map(len, names))))
    axes.legend(
        handles[: 2 * columns],
        names[: 2 * columns],
        ncols=columns,
        fontsize=FONT_SIZE,
        handlelength=1,
        columnspacing=1,
        loc="upper left",
        bbox_to_anchor=(-LEFT_IN / box.width, -LEGEND_IN / box.height),
    )


if __name__ == "__main__":
    main()
