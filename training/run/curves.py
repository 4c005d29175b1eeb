"""Line charts as PNG, drawn with Pillow: a plotting library is too much for a curve or two.

1. every series reaches the edge of its data: the axes span exactly what is drawn, rounded out to even ticks;
2. a series of one point is a dot;
3. a folder that cannot be written to is an error that names it, and a file is written whole or not at all.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from training.files import write_whole

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 960, 540
LEFT, TOP, RIGHT, BOTTOM = 90, 50, WIDTH - 30, HEIGHT - 60
INK, GRID = "#222222", "#dddddd"
COLOURS = ("#1f5fa8", "#c8501e", "#2e7d32", "#7b3fa0")  # told apart by people who see no red or green, too


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Even round numbers (1, 2, 2.5 or 5 times a power of ten apart) that enclose low..high."""
    if not high > low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    gap = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / gap + 1e-9), math.ceil(high / gap - 1e-9)
    return [index * gap for index in range(first, last + 1)]


def line_chart(title: str, x_name: str, series: Mapping[str, Points]) -> Image.Image:
    """`series` maps a name to its (x, y) points, in the order of x -> RGB image of 960 x 540."""
    x_ticks = ticks(*_range([x for points in series.values() for x, _ in points]))
    y_ticks = ticks(*_range([y for points in series.values() for _, y in points]))
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    draw.font = ImageFont.load_default(14)
    draw.text((LEFT, 14), title, fill=INK, font_size=18)
    for tick in x_ticks:
        x = place(tick, x_ticks, LEFT, RIGHT)
        draw.line([(x, TOP), (x, BOTTOM)], fill=GRID)
        draw.text((x, BOTTOM + 8), f"{tick:g}", fill=INK, anchor="ma")
    for tick in y_ticks:
        y = place(tick, y_ticks, BOTTOM, TOP)
        draw.line([(LEFT, y), (RIGHT, y)], fill=GRID)
        draw.text((LEFT - 8, y), f"{tick:.4g}", fill=INK, anchor="rm")
    draw.text(((LEFT + RIGHT) / 2, HEIGHT - 24), x_name, fill=INK, anchor="ma")
    end_of_name: float = RIGHT
    for index, (name, points) in reversed([*enumerate(series.items())]):  # so that the first lies on top
        colour = COLOURS[index % len(COLOURS)]
        line = [(place(x, x_ticks, LEFT, RIGHT), place(y, y_ticks, BOTTOM, TOP)) for x, y in points]
        draw.line(line, fill=colour, width=2, joint="curve")
        if len(line) == 1:
            draw.circle(line[0], 3, fill=colour)
        draw.text((end_of_name, 14), name, fill=colour, anchor="ra")
        end_of_name -= draw.textlength(name) + 20
    return image


def place(value: float, axis: Sequence[float], start: float, end: float) -> float:
    """Where `value` lies between the pixels `start` and `end` of an axis with these ticks."""
    return start + (value - axis[0]) / (axis[-1] - axis[0]) * (end - start)


def grid(charts: Sequence[Image.Image], columns: int = 2) -> Image.Image:
    """Charts of `line_chart` side by side, row by row."""
    rows = math.ceil(len(charts) / columns)
    sheet = Image.new("RGB", (columns * WIDTH, rows * HEIGHT), "white")
    for index, chart in enumerate(charts):
        sheet.paste(chart, (index % columns * WIDTH, index // columns * HEIGHT))
    return sheet


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG. Raises TrainingError that names the path."""
    content = io.BytesIO()
    image.save(content, "PNG")
    write_whole(path, content.getvalue())


def _range(values: Sequence[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (0.0, 1.0)
