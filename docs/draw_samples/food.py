"""Oranges, lemons, bananas, a pretzel and a mushroom."""

from __future__ import annotations

import numpy as np
from paint import Mask, Scene, move, oval, smooth, soften, turn, union
from stage import shadow, shine, table

LEMON = "-74,0 -66,-7 -52,-26 -20,-42 18,-42 50,-27 64,-8 73,-3 73,4 63,9 48,29 18,43 -20,42 -52,25 -66,8"
BANANA = "30,66 38,62 60,92 100,112 146,112 190,92 214,62 224,60 224,70 210,104 176,138 132,152 88,146 50,118 32,84"


def orange() -> Scene:
    scene = Scene(224, 192, seed=21)
    table(scene, 92, ("#b98a58", "#8a5c34"), ("#d9dcd8", "#b4b9b4"))
    for x, y, r in ((146, 90, 52), (74, 112, 60)):
        shadow(scene, x + 8, y + r - 5, r, 9)
        fruit = scene.area(oval(x, y, r, r * 0.96))
        scene.solid(fruit, "#ffab2e", "#b04c00", r * 0.42)
        _peel(scene, fruit, 0.12)
        shine(scene, x - r * 0.35, y - r * 0.42, r * 0.2, r * 0.12, -35)
        scene.stain(scene.area(oval(x + r * 0.12, y - r * 0.78, 4, 2.5)), "#5c6a20", 1.5, 0.9)
    return scene


def lemon() -> Scene:
    scene = Scene(224, 176, seed=22)
    table(scene, 76, ("#e6e2da", "#c2bcb0"), ("#a6b6b8", "#c4cfcd"))
    for x, y, size, tilt in ((142, 84, 0.9, 18), (78, 104, 1.0, -16)):
        shadow(scene, x + 6, y + 40 * size, 60 * size, 8, 0.45)
        outline = move(smooth(LEMON) * size, x, y)
        fruit = scene.area(turn(outline, x, y, tilt))
        scene.solid(fruit, "#ffe83c", "#b88c00", 20 * size)
        _peel(scene, fruit, 0.1)
        shine(scene, x - 18 * size, y - 20 * size, 16 * size, 7 * size, tilt, 0.65)
    return scene


def _peel(scene: Scene, mask: Mask, strength: float) -> None:
    """The pores of a citrus fruit."""
    scene.texture(mask, scene.noise(3) * 0.6 + scene.noise(5) * 0.4, strength)


def banana() -> Scene:
    scene = Scene(240, 176, seed=23)
    table(scene, 60, ("#8f6a48", "#6c4a2e"), ("#dcd6cc", "#c8c0b4"))
    shadow(scene, 124, 150, 90, 9)
    for down, light, dark in ((-26, "#f2cf3a", "#8a6208"), (-10, "#f8d944", "#967010"), (8, "#ffe454", "#a47c14")):
        fruit = scene.area(move(smooth(BANANA), down * 0.4, down))
        scene.solid(fruit, light, dark, 11)
        ridge = scene.line(move("40,80 70,114 112,130 156,128 196,106 214,76", down * 0.4, down), 3, 4, 3)
        scene.stain(ridge, "#a88018", 1.5, 0.4)
        scene.paint(scene.area(move(oval(221, 63, 6, 7), down * 0.4, down)), "#4a3a18", 0.9)
    scene.solid(scene.line("26,44 32,56 38,72", 10, 12, 16), "#b4a038", "#5c4c10", 5)
    return scene


def pretzel() -> Scene:
    """Cut out with its shadow."""
    scene = Scene(208, 192, seed=30)
    scene.fill((0, "#f4f0e8"), (192, "#f4f0e8"))
    ends = (
        "104,150 148,160 174,120 168,70 132,48 104,84 80,118 58,140",
        "104,150 60,160 34,120 40,70 76,48 104,84 128,118 150,140",
    )
    shade = soften(union(scene.line(move(end, 5, 6), 18) for end in ends), 4)
    scene.paint(shade, "#2c1c0c")
    ropes = [scene.line(end, 26, 26, 24, 22, 20, 17, 15, 11) for end in ends]
    for dough in ropes:
        scene.solid(dough, "#d0843c", "#5c2808", 9)
        scene.texture(dough, scene.noise(9), 0.14)
        grains = scene.random.uniform((30, 40), (180, 165), (90, 2))
        salt = union(scene.area(oval(x, y, 1.7, 1.3, 40)) for x, y in grains)
        scene.paint(salt * (soften(dough, 2) > 0.8), "#fcf8ee", 0.9)
    scene.cover = union([*ropes, 0.5 * shade])
    return scene


def mushroom() -> Scene:
    scene = Scene(224, 192, seed=25)
    scene.fill((0, "#2c4424"), (110, "#48602c"), (112, "#4c4a22"), (192, "#2c2410"))
    scene.bokeh(24, 110, ("#7c9c50", "#a8bc70", "#56783c"), 9)
    scene.blur(2)
    scene.grass(104, 1400, ("#4c6a2c", "#66843a", "#3c5424"), 16)
    shadow(scene, 116, 172, 54, 9)
    stem = scene.area(smooth("98,92 134,92 132,130 142,168 128,176 100,176 88,166 98,130"))
    scene.solid(stem, "#f6eedc", "#94805c", 12)
    scene.fur(stem, "116,-300", 9, 1200, 0.06)
    gills = scene.area(oval(115, 92, 68, 16))
    scene.solid(gills, "#e2d0ac", "#7a623c", 6)
    scene.paint(
        union(
            scene.line(f"115,92 {115 + 66 * np.cos(a):.1f},{92 + 15 * np.sin(a):.1f}", 0.8)
            for a in np.arange(0.1, 3.1, 0.12)
        ),
        "#7a623c",
        0.6,
    )
    cap = scene.area(smooth("42,94 46,66 70,38 114,26 160,38 184,66 188,94 160,84 115,80 70,84"))
    scene.solid(cap, "#d08a4e", "#5e2c10", 22)
    scene.texture(cap, scene.noise(14, 8) + 0.6 * scene.noise(4), 0.09)
    shine(scene, 92, 50, 22, 8, -22, 0.4)
    scene.grass(166, 500, ("#4c6a2c", "#66843a", "#3c5424"), 22)
    return scene
