"""A teapot, an umbrella, a school bus, a goldfish and a ladybug."""

from __future__ import annotations

import numpy as np
from paint import Colour, Scene, box, dots, move, oval, rgb, smooth, union
from stage import shadow, shine, table


def teapot() -> Scene:
    scene = Scene(240, 192, seed=24)
    table(scene, 118, ("#a67c52", "#7c5632"), ("#8da39a", "#b8c6bc"))
    shadow(scene, 126, 164, 78, 10)
    china: tuple[Colour, Colour] = ("#fbfaf4", "#8f97a4")
    handle = scene.line("176,84 214,76 222,110 200,138 172,142", 11, 11, 10, 9, 9)
    scene.solid(handle, *china, 4)
    spout = scene.area(smooth("76,140 50,122 40,92 22,70 36,66 54,82 66,104 84,112"))
    scene.solid(spout, *china, 7)
    body = scene.area(smooth("82,78 100,68 128,65 156,68 174,78 186,106 182,138 164,160 128,166 92,160 74,138 70,106"))
    scene.solid(body, *china, 22)
    lid = scene.area(smooth("90,74 98,60 128,52 158,60 166,74 128,80"))
    scene.solid(lid, *china, 9)
    scene.solid(scene.area(oval(128, 48, 9, 8)), *china, 5)
    scene.stain(scene.line("88,76 128,82 168,76", 2.2), "#6a7280", 1, 0.7)
    for x, y, size in ((112, 118, 1.0), (146, 126, 0.8), (128, 102, 0.6)):
        petals = (
            oval(x + 9 * size * np.cos(a), y + 9 * size * np.sin(a), 6 * size, 6 * size)
            for a in np.arange(0, 6.28, 1.2566)
        )
        scene.paint(union(scene.area(petal) for petal in petals), "#2c56a6", 0.85)
        scene.paint(scene.area(oval(x, y, 4 * size, 4 * size)), "#f0c84a")
    shine(scene, 104, 92, 10, 20, 20, 0.55)
    return scene


def umbrella() -> Scene:
    scene = Scene(224, 224, seed=27)
    scene.fill((0, "#8ea2b0"), (150, "#c2ccd0"), (152, "#7c8488"), (224, "#565e62"))
    scene.texture(scene.everywhere, scene.noise(50, 30), 0.08)
    scene.blur(2)
    scene.paint(scene.line("112,34 114,120 116,186", 3.5), "#3a3230")
    scene.paint(scene.line("116,184 117,200 108,208 99,202 99,194", 5, 5, 5), "#6c3c1c")
    top = smooth("14,116 22,74 58,36 112,22 166,36 202,74 210,116", closed=False)
    canopy = scene.area(np.vstack([top, dots("186,104 162,118 138,104 112,120 86,104 62,118 38,104")]))
    scene.solid(canopy, "#e8383c", "#7c0c18", 26)
    for rib in ("112,24 62,50 40,104", "112,24 92,56 86,106", "112,24 132,56 138,106", "112,24 162,50 186,104"):
        scene.stain(scene.line(rib, 1.6) * canopy, "#5c0812", 0.8, 0.8)
    for x in (14, 62, 112, 162, 210):
        scene.paint(scene.area(oval(x, 118, 1.8, 2.5)), "#dcdcdc")
    scene.paint(scene.line("112,24 112,12", 3), "#3a3230")
    shine(scene, 76, 58, 16, 8, -40, 0.35)
    drops = scene.random.uniform(0, 224, (150, 2))
    rain = ((move("0,0 -2,9", x, y), 0.5, rgb("#e1e8ee")) for x, y in drops)
    scene.strokes(rain)
    return scene


def school_bus() -> Scene:
    scene = Scene(256, 176, seed=28)
    scene.fill((0, "#7ab0e0"), (84, "#dce8ec"), (85, "#6c8a4c"), (120, "#587a3c"), (121, "#74767a"), (176, "#54565a"))
    scene.clouds(80, 0.7)
    trees = union(scene.area(oval(x, 74, 26, 22)) for x in (-4, 36, 70, 190, 226, 258))
    scene.paint(trees, "#42683a")
    scene.texture(trees, scene.noise(8), 0.3)
    scene.blur(1.5)
    scene.stain(scene.area(oval(132, 150, 108, 9)), "#18181c", 4, 0.7)
    body = scene.area(smooth("22,52 30,42 60,39 190,39 200,44 204,80 236,88 242,96 243,138 22,138 20,90"))
    scene.solid(body, "#ffc22a", "#c07c00", 9)
    scene.paint(union(scene.area(box(x, 52, x + 17, 74)) for x in range(34, 176, 21)), "#26323c")
    scene.paint(union(scene.area(box(x + 1, 53, x + 16, 60)) for x in range(34, 176, 21)), "#7c98ac", 0.6)
    scene.paint(scene.area("182,50 196,50 200,78 182,78"), "#26323c")
    for y in (82, 100, 118):
        scene.paint(scene.area(box(22, y, 206, y + 3)) * body, "#16161a")
    scene.paint(scene.area(box(176, 80, 200, 136)), "#c88a08", 0.5)
    scene.paint(scene.area(box(236, 120, 248, 130)), "#2a2a2e")
    scene.paint(scene.area(oval(238, 104, 4, 6)), "#fff6d0")
    scene.paint(scene.area(oval(34, 45, 4, 3)) + scene.area(oval(190, 44, 4, 3)), "#d83020")
    scene.paint(scene.area(box(14, 130, 30, 137)), "#2a2a2e")
    for x in (62, 212):
        scene.paint(scene.area(oval(x, 137, 20, 18)) * scene.area(box(0, 110, 256, 139)), "#1a1408")
        scene.solid(scene.area(oval(x, 140, 16, 16)), "#44444a", "#0c0c0e", 4)
        scene.solid(scene.area(oval(x, 140, 7.5, 7.5)), "#d4d4d0", "#6c6c6c", 3)
    return scene


def goldfish() -> Scene:
    scene = Scene(256, 176, seed=26)
    scene.fill((0, "#2c7c8c"), (90, "#145468"), (176, "#0a3040"))
    scene.texture(scene.everywhere, scene.noise(60, 30) + 0.4 * scene.noise(20, 12), 0.14)
    for x in (24, 44, 226, 240):
        scene.stain(scene.line(f"{x},180 {x + 8},140 {x - 4},100 {x + 6},64", 7, 6, 4, 2), "#2c6a3a", 1.5, 0.8)
    scene.blur(1.5)
    fins: tuple[Colour, Colour] = ("#ffb454", "#c84c0c")
    tail = scene.area(smooth("178,88 204,58 236,36 246,44 228,74 222,90 230,110 244,136 232,142 202,122"))
    scene.solid(tail, *fins, 7)
    dorsal = scene.area(smooth("84,54 100,28 132,20 160,40 172,68"))
    scene.solid(dorsal, *fins, 6)
    for fin in ("112,122 128,148 144,152 142,124", "152,116 164,134 178,136 172,110"):
        scene.solid(scene.area(smooth(fin)), *fins, 5)
    for root, tips in (
        ("180,90", ((240, 42), (226, 66), (220, 90), (228, 116), (240, 136))),
        ("120,60", ((104, 30), (122, 22), (140, 24), (156, 38))),
    ):
        scene.paint(union(scene.line(f"{root} {x},{y}", 0.9) for x, y in tips), "#b8480c", 0.5)
    body = scene.area(smooth("24,88 40,66 74,50 120,46 160,64 188,84 190,94 164,112 122,126 76,124 42,110"))
    scene.solid(body, "#ffa62c", "#b43402", 20)
    scales = union(
        scene.area(oval(x + (row % 2) * 5, y, 5, 5)) - scene.area(oval(x + (row % 2) * 5 + 1.4, y, 4.6, 4.6))
        for row, y in enumerate(range(58, 122, 7))
        for x in range(82, 180, 10)
    )
    scene.paint(np.clip(scales, 0, 1) * body, "#9c3400", 0.4)
    scene.stain(scene.line("74,60 66,88 76,116", 3), "#a03a04", 1.5, 0.6)
    scene.solid(scene.area(smooth("84,96 106,94 112,108 92,112")), *fins, 4)
    scene.paint(scene.area(oval(52, 78, 8, 8)), "#ffe9b8")
    scene.paint(scene.area(oval(52, 78, 5, 5)), "#0c0c10")
    scene.paint(scene.area(oval(50, 76, 1.6, 1.6)), "#ffffff")
    scene.stain(scene.line("26,92 34,96 38,94", 1.5), "#7a2400", 0.8, 0.9)
    shine(scene, 96, 62, 30, 6, -4, 0.45)
    return scene


def ladybug() -> Scene:
    scene = Scene(224, 176, seed=29)
    scene.fill((0, "#7ca83c"), (176, "#4c7c24"))
    scene.bokeh(26, 176, ("#a8cc5c", "#c4dc80", "#5c8c30"), 12)
    scene.blur(2)
    leaf = scene.area(smooth("-20,150 40,104 120,88 200,98 250,84 250,200 -20,200"))
    scene.solid(leaf, "#8cc044", "#3c6c1c", 16)
    scene.stain(scene.line("-20,160 80,136 180,134 250,120", 3, 2.5, 2), "#b8dc78", 1, 0.7)
    shadow(scene, 116, 132, 66, 8, 0.5)
    legs = ("70,122 54,130 46,138", "104,128 98,140 88,146", "146,128 156,138 168,142")
    scene.paint(union(scene.line(leg, 4, 3, 2) for leg in legs), "#14100e")
    head = scene.area(smooth("66,96 50,98 40,108 42,122 54,128 70,126"))
    scene.solid(head, "#3c3834", "#080808", 6)
    scene.paint(scene.area(oval(52, 106, 4.5, 4)), "#f4f0e6")
    scene.paint(scene.line("46,104 34,94 28,96", 2, 1.5, 2.5), "#14100e")
    shell = scene.area(smooth("58,126 62,94 86,66 122,56 158,66 180,94 186,126 150,132 96,132"))
    scene.solid(shell, "#f0402c", "#7c0c06", 22)
    scene.stain(scene.line("72,80 118,88 184,120", 1.8), "#4c0804", 0.8, 0.8)
    for x, y, r in ((92, 112, 10), (126, 110, 10), (158, 116, 8), (112, 76, 9), (146, 84, 8), (84, 88, 6)):
        scene.paint(scene.area(oval(x, y, r, r * 0.9, -15)), "#120c0a")
    shine(scene, 106, 66, 16, 5, -18, 0.7)
    return scene
