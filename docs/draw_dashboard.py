"""Draw the dashboard as an SVG, from what a Prometheus has scraped.

    python docs/draw_dashboard.py --prometheus http://127.0.0.1:9090 --minutes 4 --out docs/dashboard.svg

It is for the documentation: Grafana draws it for everybody else. Queries, titles, units and places are the dashboard's.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from html import escape
from pathlib import Path
from typing import Any

import httpx

DASHBOARD = Path(__file__).parents[1] / "docker/grafana/dashboards/repvgg.json"
SCRAPE_S = 2
POINTS = 75
CELL_W, CELL_H = 50, 26
COLOURS = ("#3274d9", "#e0752d", "#56a64b", "#a352cc", "#e02f44", "#e0b400", "#37a2b4", "#8f8f8f", "#b877d9", "#7a5c3e")

Series = dict[str, list[tuple[float, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--minutes", type=float, default=4, help="up to now")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("dashboard.svg"))
    arguments = parser.parse_args()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    end = time.time()
    start = end - 60 * arguments.minutes
    with httpx.Client(base_url=arguments.prometheus, timeout=60) as client:
        drawn = [
            row(panel) if panel["type"] == "row" else draw(panel, fetch(client, panel, start, end), start, end)
            for panel in panels
        ]
    width = 24 * CELL_W
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) * CELL_H
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" fill="#333">'
    )
    back = f'<rect width="{width}" height="{height}" fill="#f4f5f5"/>'
    arguments.out.write_text("\n".join([head, back, *drawn, "</svg>\n"]))


def fetch(client: httpx.Client, panel: dict[str, Any], start: float, end: float) -> Series:
    """Legend -> (time, value) of every series of the panel."""
    step = (end - start) / POINTS
    found: Series = {}
    for target in panel["targets"]:
        # As Grafana chooses it.
        rate_interval = f"{math.ceil(max(4 * SCRAPE_S, step + SCRAPE_S))}s"
        query = (
            target["expr"].replace("$__rate_interval", rate_interval).replace("$job", ".+").replace("$instance", ".+")
        )
        asked = {"query": query, "start": start, "end": end, "step": step}
        reply = client.get("/api/v1/query_range", params=asked).raise_for_status().json()
        for series in reply["data"]["result"]:
            legend = target["legendFormat"]
            for name, value in series["metric"].items():
                legend = legend.replace("{{" + name + "}}", value)
            found[legend] = [(moment, float(value)) for moment, value in series["values"] if value != "NaN"]
    return dict(sorted(found.items()))


def row(panel: dict[str, Any]) -> str:
    return f'<text x="8" y="{panel["gridPos"]["y"] * CELL_H + 19}" font-size="15">▾ {escape(panel["title"])}</text>'


def draw(panel: dict[str, Any], series: Series, start: float, end: float) -> str:
    place, defaults = panel["gridPos"], panel["fieldConfig"]["defaults"]
    width, height = place["w"] * CELL_W - 6, place["h"] * CELL_H - 6
    left, top, right, bottom = 52, 26, width - 10, height - 36
    stacked = "stacking" in defaults["custom"]
    lines = stack(series) if stacked else series
    most = defaults.get("max") or 1.05 * max((value for line in lines.values() for _, value in line), default=0) or 1

    def x(moment: float) -> float:
        return left + (right - left) * (moment - start) / (end - start)

    def y(value: float) -> float:
        return bottom - (bottom - top) * min(value / most, 1)

    parts = [
        f'<g transform="translate({place["x"] * CELL_W + 3} {place["y"] * CELL_H + 3})" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="#fff" stroke="#ddd"/>',
        f'<text x="8" y="17" font-size="12" font-weight="bold">{escape(panel["title"])}</text>',
    ]
    for part in (0, 0.5, 1):
        level = y(part * most)
        parts.append(f'<path d="M{left} {level:.0f}H{right}" stroke="#eee"/>')
        text = in_unit(part * most, defaults["unit"])
        parts.append(f'<text x="{left - 4}" y="{level + 3:.0f}" text-anchor="end">{text}</text>')
    for step in defaults.get("thresholds", {}).get("steps", [])[1:]:
        parts.append(
            f'<path d="M{left} {y(step["value"]):.0f}H{right}" stroke="{step["color"]}" stroke-dasharray="4"/>'
        )
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(series)}
    for name, line in (
        reversed(lines.items()) if stacked else lines.items()
    ):  # the highest pile first, behind the others
        if line:
            path = "L".join(f"{x(moment):.1f} {y(value):.1f}" for moment, value in line)
            area = f"L{x(line[-1][0]):.1f} {bottom}L{x(line[0][0]):.1f} {bottom}Z"
            if stacked:
                parts.append(f'<path d="M{path}{area}" fill="{colours[name]}"/>')
            else:
                parts.append(f'<path d="M{path}" fill="none" stroke="{colours[name]}" stroke-width="1.3"/>')
    return "\n".join([*parts, legend(series, colours, width, height), "</g>"])


def stack(series: Series) -> Series:
    """Each line on top of those before it."""
    piled: dict[float, float] = {}
    stacked: Series = {}
    for name, line in series.items():
        for moment, value in line:
            piled[moment] = piled.get(moment, 0.0) + value
        stacked[name] = [(moment, piled[moment]) for moment, _ in line]
    return stacked


def legend(series: Series, colours: dict[str, str], width: int, height: int) -> str:
    """Two lines of names, as many as there is room for."""
    parts, x, y = [], 8.0, height - 18
    for name in series:
        shown = name if len(name) < 40 else name[:37] + "..."
        needed = 16 + 5.4 * len(shown)
        if x + needed > width:
            x, y = 8.0, y + 13
        if y > height - 4:
            break
        parts.append(f'<rect x="{x:.0f}" y="{y - 7}" width="8" height="8" fill="{colours[name]}"/>')
        parts.append(f'<text x="{x + 11:.0f}" y="{y}" font-size="9">{escape(shown)}</text>')
        x += needed + 6
    return "\n".join(parts)


def in_unit(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value:.0%}"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    if unit == "s" and value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g}" + {"s": " s", "reqps": "/s"}.get(unit, "")


if __name__ == "__main__":
    main()
