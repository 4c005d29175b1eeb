"""The latencies of a load as a picture: bars on a logarithmic axis, as a PNG or as an HTML page."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from service.load.figures import Figures

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 420, 20, 20, 70, 40  # pixels
FONT_SIZE = 14
BAR, MARK, DEADLINE, INK = "#1f5fa8", "#c83c1e", "#777777", "#222222"
TICKS_MS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
ANCHORS = {"start": "lm", "middle": "mm", "end": "rm"}  # SVG's names -> Pillow's
MARKS_ABOVE = {"p50": 0, "p99": 18}  # pixels, so that two names side by side can be read


@dataclass(frozen=True)
class Box:
    """A filled rectangle; of a line, one pixel wide."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True)
class Text:
    """`anchor`: the text starts, is centred or ends at `x`; `y` is its middle."""

    x: float
    y: float
    text: str
    anchor: str = "middle"
    colour: str = INK


Shape = Box | Text


def shapes(figures: Figures, title: str) -> Iterator[Shape]:
    """The drawing, from the back to the front. Raises ValueError if there was no answer."""
    if not figures.histogram or figures.latency_ms is None:
        raise ValueError("there was no answer, so there is no histogram")
    bounds_ms = [upper for upper, _ in figures.histogram]
    ratio = bounds_ms[1] / bounds_ms[0] if len(bounds_ms) > 1 else 1.09
    edges_ms = [bounds_ms[0] / ratio, *bounds_ms]
    ground, most = HEIGHT - BOTTOM, max(count for _, count in figures.histogram)

    def at(milliseconds: float) -> float:
        share = math.log(milliseconds / edges_ms[0]) / math.log(edges_ms[-1] / edges_ms[0])
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    yield Text(LEFT, 12, title, "start")
    for lower, (upper, count) in zip(edges_ms, figures.histogram, strict=False):
        height = count / most * (ground - TOP)
        yield Box(at(lower), ground - height, max(1.0, at(upper) - at(lower) - 1), height, BAR)
    yield Box(LEFT, ground, WIDTH - LEFT - RIGHT, 1, INK)
    for tick in TICKS_MS:
        if edges_ms[0] <= tick <= edges_ms[-1]:
            yield Box(at(tick), ground, 1, 5, INK)
            yield Text(at(tick), ground + 16, f"{tick:g} ms")
    for name, above in MARKS_ABOVE.items():
        value = getattr(figures.latency_ms, name)
        yield from _mark(min(at(value), WIDTH - RIGHT), TOP - 6 - above, f"{name} {value:.1f} ms", MARK)
    if edges_ms[0] <= figures.conditions.deadline_ms <= edges_ms[-1]:
        yield from _mark(at(figures.conditions.deadline_ms), TOP - 42, "deadline", DEADLINE)


def _mark(x: float, y: float, text: str, colour: str) -> Iterator[Shape]:
    yield Box(x, y + 8, 1, HEIGHT - BOTTOM - y - 8, colour)
    anchor = "start" if x < WIDTH / 4 else "end" if x > WIDTH * 3 / 4 else "middle"
    yield Text(x, y, text, anchor, colour)


def png(drawing: Sequence[Shape]) -> bytes:
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT_SIZE)
    for shape in drawing:
        if isinstance(shape, Box):
            pen.rectangle((shape.x, shape.y, shape.x + shape.width, shape.y + shape.height), shape.colour)
        else:
            pen.text((shape.x, shape.y), shape.text, shape.colour, font, ANCHORS[shape.anchor])
    encoded = BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


def page(drawing: Sequence[Shape], title: str) -> bytes:
    """HTML with the drawing as SVG; nothing is loaded from elsewhere."""
    lines = []
    for shape in drawing:
        if isinstance(shape, Box):
            lines.append(
                f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}" '
                f'fill="{shape.colour}"/>'
            )
        else:
            lines.append(
                f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" text-anchor="{shape.anchor}" dominant-baseline="middle" '
                f'fill="{shape.colour}">{html.escape(shape.text)}</text>'
            )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'style="max-width: {WIDTH}px; background: white; font: {FONT_SIZE}px sans-serif">'
    )
    head = f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title></head>'
    return "\n".join(["<!DOCTYPE html>", head, "<body>", svg, *lines, "</svg>", "</body></html>", ""]).encode()
