"""A small paint box: shapes with soft edges, solid bodies under one sun, noise for texture, hairs and grass.

1. lengths and places are pixels of the finished picture, counted from its upper left corner; shapes are drawn at
   four times the size and averaged down;
2. the same seed gives the same picture, whichever vector units the processor has.

Outlines are written as SVG writes them, `"12,40 18,22"`, and colours as the web does, `"#c8a070"`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

FINER = 4

Array = NDArray[np.float64]
Points = str | Array  # or (N, 2): x, y
Colour = str | Array  # or (height, width, 3), or (3,): 0..255
Mask = Array  # (height, width): 0..1
Stroke = tuple[Array, float, Array]  # its points, width and colour


def dots(points: Points) -> Array:
    if isinstance(points, str):
        return np.array([pair.split(",") for pair in points.split()], float)
    return points


def rgb(colour: Colour) -> Array:
    return np.array(ImageColor.getrgb(colour), float) if isinstance(colour, str) else colour


def box(left: float, top: float, right: float, bottom: float) -> Array:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)


def oval(x: float, y: float, rx: float, ry: float, tilt: float = 0.0) -> Array:
    """An ellipse around (x, y); `tilt` in degrees, clockwise."""
    angles = np.linspace(0, 2 * np.pi, 73)[:-1]
    return turn(np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1), x, y, tilt)


def move(points: Points, right: float, down: float) -> Array:
    return dots(points) + np.array([right, down])


def turn(points: Points, x: float, y: float, degrees: float) -> Array:
    """The points turned clockwise around (x, y)."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    across, down = move(points, -x, -y).T
    return np.stack([x + across * cos - down * sin, y + across * sin + down * cos], axis=1)


def mirror(points: Points, side: int, middle: float = 128.0) -> Array:
    """The points as they are (side 1), or on the other side of the upright line at x = `middle` (side -1)."""
    return move(move(points, -middle, 0) * (side, 1), middle, 0)


def smooth(points: Points, closed: bool = True) -> Array:
    """A smooth line through the points (Catmull-Rom), ten steps from each to the next."""
    p = dots(points)
    p = np.vstack([p[-1], p, p[:2]]) if closed else np.vstack([p[0], p, p[-1]])
    t = np.linspace(0, 1, 10, endpoint=False)[:, None]
    ways = [
        (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3) / 2
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
    ]
    return np.vstack(ways if closed else [*ways, p[-1:]])


def union(masks: Iterable[Mask]) -> Mask:
    return np.maximum.reduce(list(masks))


def soften(plane: Array, radius: float) -> Array:
    """Nearly a Gauss bell of `radius` pixels over the first two axes: three box filters along each."""
    half = max(1, round(radius))
    for axis in (0, 1):
        for _ in range(3):
            pad = [(half + 1, half) if a == axis else (0, 0) for a in range(plane.ndim)]
            total = np.cumsum(np.pad(plane, pad, mode="edge"), axis=axis)
            lower, upper = np.split(total, [plane.shape[axis]], axis)[0], np.split(total, [2 * half + 1], axis)[1]
            plane = (upper - lower) / (2 * half + 1)
    return plane


class Scene:
    """`pixels`: float64 (height, width, 3), 0..255; `cover`: how much of each is not transparent."""

    def __init__(self, width: int, height: int, seed: int) -> None:
        self.width, self.height = width, height
        # The stream of RandomState is frozen for good; that of default_rng may change with numpy's version.
        self.random = np.random.RandomState(seed)
        self.pixels = np.zeros((height, width, 3))
        self.everywhere: Mask = np.ones((height, width))
        self.cover = self.everywhere

    # --- masks

    def area(self, points: Points) -> Mask:
        """What lies inside the outline."""
        fine = Image.new("L", (self.width * FINER, self.height * FINER))
        ImageDraw.Draw(fine).polygon([tuple(point) for point in dots(points) * FINER], fill=255)
        return np.asarray(fine.reduce(FINER), float) / 255

    def line(self, points: Points, *widths: float) -> Mask:
        """A smooth brush stroke through the points; its widths are spread evenly along it."""
        fine = Image.new("L", (self.width * FINER, self.height * FINER))
        brush = ImageDraw.Draw(fine)
        path = smooth(points, closed=False) * FINER
        steps = 2 + np.abs(np.diff(path, axis=0)).sum(axis=1).astype(int)
        way = np.vstack([np.linspace(a, b, n) for a, b, n in zip(path, path[1:], steps, strict=False)])
        radii = np.interp(np.linspace(0, 1, len(way)), np.linspace(0, 1, len(widths)), widths) * FINER / 2
        for (x, y), r in zip(way, radii, strict=True):
            brush.ellipse((x - r, y - r, x + r, y + r), fill=255)
        return np.asarray(fine.reduce(FINER), float) / 255

    def noise(self, across: float, down: float | None = None) -> Array:
        """(height, width): smooth noise in -1..1 with bumps of about `across` x `down` pixels."""
        size = max(2, round(self.width / across)), max(2, round(self.height / (down or across)))
        coarse = Image.fromarray(self.random.uniform(-1, 1, size[::-1]).astype(np.float32))
        return np.clip(np.asarray(coarse.resize((self.width, self.height), Image.Resampling.BICUBIC), float), -1, 1)

    def below(self, y: float, fade: float = 1.0) -> Mask:
        """Everything lower than `y`, coming in over `fade` pixels; everything higher for a negative `fade`."""
        rows = np.arange(self.height)[:, None] + 0.5
        return np.clip((rows - y) / fade, 0, 1) * self.everywhere

    # --- painting

    def fill(self, *stops: tuple[float, str]) -> None:
        """Fill the picture from top to bottom; a stop is a height and its colour."""
        heights = [height for height, _ in stops]
        bands = np.stack([rgb(colour) for _, colour in stops], axis=1)
        rows = np.arange(self.height) + 0.5
        self.pixels = np.stack([np.interp(rows, heights, band) for band in bands], axis=1)[:, None] * np.ones(
            (1, self.width, 1)
        )

    def paint(self, mask: Mask, colour: Colour, opacity: float = 1.0) -> None:
        cover = (np.clip(mask, 0, 1) * opacity)[:, :, None]
        self.pixels = self.pixels * (1 - cover) + rgb(colour) * cover

    def stain(self, mask: Mask, colour: Colour, radius: float, opacity: float = 1.0) -> None:
        """Paint with an edge that is `radius` pixels soft."""
        self.paint(soften(mask, radius), colour, opacity)

    def solid(
        self, mask: Mask, light: Colour, dark: Colour, depth: float, sun: tuple[float, float] = (-0.5, -1.0)
    ) -> None:
        """Paint a body that bulges over `depth` pixels from its edge; `sun` points to where the light is from."""
        down, across = np.gradient(soften(mask, depth))
        lit = np.clip(0.5 - 1.6 * depth * (across * sun[0] + down * sun[1]), 0, 1)[:, :, None]
        self.paint(mask, rgb(dark) * (1 - lit) + rgb(light) * lit)

    def texture(self, mask: Mask, noise: Array, strength: float) -> None:
        """Lighten and darken inside the mask by up to `strength` (0..1)."""
        self.pixels = self.pixels * (1 + (mask * noise * strength)[:, :, None])

    def blur(self, radius: float) -> None:
        self.pixels = soften(self.pixels, radius)

    def clouds(self, bottom: float, opacity: float) -> None:
        noise = self.noise(70, 22) + 0.5 * self.noise(26, 10) + 0.3 * self.noise(9, 5)
        self.paint(np.clip(soften(noise, 1) - 0.1, 0, 1) * self.below(bottom, -60), "#fcfcff", opacity)

    def bokeh(self, count: int, bottom: float, colours: tuple[str, ...], radius: float) -> None:
        """Pale spots of light out of focus."""
        for x, y, size, pick in self.random.uniform(0, 1, (count, 4)):
            spot = oval(x * self.width, y * bottom, (0.7 + size) * radius, (0.7 + size) * radius)
            self.stain(self.area(spot), colours[int(pick * len(colours))], 4, 0.35)

    def strokes(self, strokes: Iterable[Stroke]) -> None:
        """Thin straight lines, one over the other."""
        size = (self.width * FINER, self.height * FINER)
        fine = Image.fromarray(self._bytes()).resize(size, Image.Resampling.NEAREST)
        pen = ImageDraw.Draw(fine)
        for points, width, colour in strokes:
            line = [tuple(point) for point in points * FINER]
            pen.line(line, tuple(int(band) for band in np.clip(colour, 0, 255)), max(1, round(width * FINER)))
        self.pixels = np.asarray(fine.reduce(FINER), float)

    def fur(self, mask: Mask, centre: str, length: float, count: int, strength: float, width: float = 0.7) -> None:
        """Hairs on the mask that point away from `centre`, lighter and darker than what they lie on."""
        throws = self.random.uniform((0, 0, -0.45, -1), (self.width, self.height, 0.45, 1), (count, 4))
        away = throws[:, :2] - dots(centre)
        angles = np.arctan2(away[:, 1], away[:, 0]) + throws[:, 2]
        tips = throws[:, :2] + length * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        columns, rows = throws[:, :2].astype(int).T
        colours = self.pixels[rows, columns] * (1 + strength * throws[:, 3:])
        grows = mask[rows, columns] > 0.9
        hairs = zip(throws[grows, :2], tips[grows], colours[grows], strict=True)
        self.strokes((np.stack([root, tip]), width, colour) for root, tip, colour in hairs)

    def grass(self, top: float, count: int, colours: tuple[str, ...], tall: float) -> None:
        """Blades from `top` downwards, taller and thicker the nearer they are."""
        greens = np.stack([rgb(colour) for colour in colours])
        throws = self.random.uniform((0, -1, 0, -1), (self.width, 1, len(greens), 1), (count, 4))
        roots = np.sort(self.random.uniform(top, self.height + tall * 0.6, count))
        blades = []
        for y, (x, lean, pick, shade) in zip(roots, throws, strict=True):
            near = (y - top) / (self.height - top) + 0.15
            height = tall * near * (0.7 + 0.3 * shade)
            bend = np.array([(0, 0), (0.2 * lean, -0.6), (0.55 * lean, -1)]) * height
            blades.append((move(bend, x, y), 0.5 + near, greens[int(pick)] * (0.85 + 0.25 * shade)))
        self.strokes(blades)

    # --- the picture

    def _bytes(self) -> NDArray[np.uint8]:
        return np.rint(np.clip(self.pixels, 0, 255)).astype(np.uint8)

    def image(self, grain: float = 3.0) -> Image.Image:
        """The picture with the darker corners of a lens and the noise of a sensor, `grain` levels of it."""
        y, x = np.mgrid[-1 : 1 : self.height * 1j, -1 : 1 : self.width * 1j]
        self.pixels = self.pixels * (1 - 0.12 * (x * x + y * y))[:, :, None]
        self.pixels = self.pixels + self.random.uniform(-grain, grain, self.pixels.shape)
        return Image.fromarray(self._bytes())
