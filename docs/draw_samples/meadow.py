"""A horse and a deer on grass, before a wood."""

from __future__ import annotations

import numpy as np
from paint import Mask, Scene, dots, move, oval, smooth, union

GREENS = ("#70963e", "#86a84a", "#547e30")


def _meadow(scene: Scene, horizon: float) -> None:
    scene.fill((0, "#7ab0e0"), (horizon, "#deeaee"), (horizon + 1, "#96b460"), (scene.height, "#547c30"))
    scene.clouds(horizon, 0.75)
    for colour, tall in (("#68866f", 26), ("#3a5c3e", 16)):
        steps = range(-10, scene.width + 20, 10)
        tops = horizon - tall - 14 * scene.random.uniform(-0.5, 0.7, len(steps))
        edge = smooth(np.stack([np.array(steps, float), tops], axis=1), closed=False)
        wood = scene.area(np.vstack([(-20, horizon + 4), edge, (scene.width + 20, horizon + 4)]))
        scene.paint(wood, colour)
        scene.texture(wood, scene.noise(8, 7) + 0.7 * scene.noise(3.5), 0.3)
    scene.texture(scene.below(horizon), scene.noise(40, 6) + 0.6 * scene.noise(12, 2.5), 0.18)
    scene.blur(2)


def _hooves(scene: Scene, places: str, size: float, colour: str) -> None:
    hoof = dots("-0.8,-1 0.8,-1 1.1,1 -1.4,1") * size
    scene.paint(union(scene.area(move(hoof, x, y)) for x, y in dots(places)), colour)


def _creases(scene: Scene, *lines: str) -> None:
    """Where shoulder, flank and cheek turn away from the light."""
    scene.stain(union(scene.line(line, 4) for line in lines), "#3c1c0c", 2, 0.4)


def horse() -> Scene:
    scene = Scene(256, 192, seed=9)
    _meadow(scene, 92)
    scene.grass(110, 3000, GREENS, 9)
    scene.stain(scene.area(oval(138, 174, 84, 8)), "#142208", 5, 0.55)
    far_legs = ("112,106 120,132 116,152 118,170", "182,104 172,126 182,144 176,170")
    scene.solid(union(scene.line(leg, 22, 11, 7, 7) for leg in far_legs), "#703c1e", "#2c140a", 5)
    _hooves(scene, "118,172 175,172", 4, "#221a16")
    tail = scene.line("204,76 218,90 222,116 216,144", 7, 15, 14, 4)
    scene.solid(tail, "#3c2820", "#140c0a", 5)
    scene.fur(tail, "214,20", 14, 3000, 0.5)
    whole = _horse_body(scene)
    scene.solid(whole, "#b26836", "#401e0e", 10, sun=(-0.4, -1))
    scene.stain(scene.area(oval(150, 88, 40, 7)), "#e2a064", 5, 0.45)
    scene.stain(scene.area(oval(190, 86, 10, 14)), "#e2a064", 5, 0.4)
    _creases(scene, "112,80 106,98 112,112", "176,84 170,104 178,118", "76,50 66,62 58,68")
    scene.fur(whole, "20,60", 4, 6000, 0.13, width=0.5)
    _hooves(scene, "95,173 194,173", 4.5, "#1e1816")
    _horse_head(scene)
    scene.grass(174, 900, GREENS, 13)
    return scene


def _horse_body(scene: Scene) -> Mask:
    body = (
        "106,66 128,72 158,72 182,66 200,74 208,92 204,112 186,118 156,124 126,124 102,118 86,104 84,84",
        "112,70 98,52 84,36 72,26 60,30 62,48 70,64 74,84 84,104 104,108 118,92",
        "72,25 60,28 50,40 41,54 35,65 35,73 41,78 49,75 57,68 66,62 74,52 78,38",
    )
    fore = scene.line("98,98 98,128 96,148 95,172", 28, 14, 8.5, 8)
    hind = scene.line("190,98 184,122 198,142 194,172", 40, 19, 10, 8.5)
    return union([fore, hind, *(scene.area(smooth(outline)) for outline in body)])


def _horse_head(scene: Scene) -> None:
    mane = scene.area(smooth("74,22 90,34 104,50 116,68 110,74 100,68 92,58 82,44 70,32"))
    scene.paint(mane, "#22140e")
    scene.fur(mane, "80,-60", 16, 3500, 0.9)
    scene.paint(scene.line("70,24 62,34 58,44", 6, 2), "#1e120c")
    for ear in ("66,27 64,15 68,10 73,24", "74,27 75,14 80,10 81,26"):
        scene.solid(scene.area(smooth(ear)), "#aa6232", "#462210", 3)
    scene.stain(scene.area(smooth("58,32 52,44 44,56 40,66 45,60 52,50 58,40")), "#f6f0e8", 1, 0.95)
    scene.stain(scene.area(oval(41, 71, 6, 6)), "#462c24", 2, 0.75)
    scene.paint(scene.area(oval(38.5, 67.5, 1.8, 2.4, 30)), "#100808")
    scene.paint(scene.line("37,75 45,73.5", 1), "#1e0e0a")
    scene.paint(scene.area(oval(60, 43, 3.4, 2.7, -40)), "#100806")
    scene.paint(scene.area(oval(59.2, 42, 1, 0.9)), "#fafafa")


def deer() -> Scene:
    scene = Scene(192, 256, seed=10)
    _meadow(scene, 128)
    scene.grass(150, 3000, GREENS, 10)
    scene.stain(scene.area(oval(104, 238, 62, 8)), "#142208", 5, 0.55)
    far_legs = ("74,180 78,204 74,218 76,238", "140,178 132,200 142,216 137,238")
    scene.solid(union(scene.line(leg, 18, 10, 5.5, 5) for leg in far_legs), "#885832", "#402614", 4)
    scene.solid(scene.area(smooth("152,146 164,150 168,164 162,172 156,164")), "#faf4ea", "#bea082", 4)
    _deer_body(scene)
    _hooves(scene, "61,240 149,240 76,238 137,238", 3.2, "#221a16")
    _antler(scene, 8, 0.92, "#967a5c", "#4a3c2c")
    _antler(scene, 0, 1.0, "#d6ba94", "#6a5c4a")
    scene.solid(scene.area(smooth("70,88 82,76 96,74 92,84 76,94")), "#be804c", "#5a341c", 4)
    scene.stain(scene.area(smooth("76,88 84,80 92,77 89,83 79,90")), "#ecc4aa", 1, 0.7)
    _deer_face(scene)
    scene.grass(238, 800, GREENS, 16)
    return scene


def _deer_body(scene: Scene) -> None:
    outlines = (
        "66,142 88,148 116,146 140,142 154,150 160,166 154,184 138,192 112,196 84,196 66,190 56,174 56,156",
        "80,150 76,128 74,106 70,92 56,92 50,106 50,128 52,152 58,176 76,178",
        "70,82 58,78 46,84 34,96 25,106 24,113 30,117 40,115 52,112 64,110 74,100",
    )
    fore = scene.line("64,174 64,202 61,218 61,240", 22, 11, 6.5, 5.5)
    hind = scene.line("146,170 142,196 153,214 149,240", 30, 14, 7, 5.5)
    whole = union([fore, hind, *(scene.area(smooth(outline)) for outline in outlines)])
    scene.solid(whole, "#c48650", "#5c361c", 9, sun=(-0.4, -1))
    belly = scene.area(smooth("72,186 96,194 130,190 138,186 130,197 90,200"))
    scene.stain(belly * whole, "#f0e0c8", 2, 0.85)
    scene.stain(scene.area(smooth("50,112 60,112 58,132 52,138")) * whole, "#f6eee0", 2, 0.9)
    _creases(scene, "78,160 72,176 78,190", "132,156 128,174 134,188")
    scene.stain(scene.area(oval(106, 156, 30, 5)), "#e0a86e", 4, 0.5)
    places = scene.random.uniform((84, 148), (150, 178), (26, 2))
    scene.stain(union(scene.area(oval(x, y, 2.2, 1.9)) for x, y in places), "#f6e2c4", 1)
    scene.fur(whole, "20,120", 4.5, 7000, 0.16, width=0.5)


def _antler(scene: Scene, right: float, scale: float, light: str, dark: str) -> None:
    """One beam and its four tines; the far antler is a little smaller."""
    beam = "64,82 72,62 84,44 82,22 74,8"
    tines = ("68,70 56,62 48,50", "78,54 66,42 62,28", "84,42 96,32 100,18", "83,30 92,18 92,6")
    root = (64, 80)
    lines = [(dots(line) - root) * scale + root + (right, 0) for line in (beam, *tines)]
    mask = union([scene.line(lines[0], 6, 5, 4, 2), *(scene.line(tine, 4, 3, 1.5) for tine in lines[1:])])
    scene.solid(mask, light, dark, 2)


def _deer_face(scene: Scene) -> None:
    scene.stain(scene.area(oval(30, 110, 6, 6)), "#463028", 2, 0.8)
    scene.stain(scene.area(oval(38, 113, 6, 2.5)), "#f4e8d8", 1, 0.8)
    scene.paint(scene.area(oval(25.5, 107.5, 2.6, 2.2, -40)), "#0e0a0a")
    scene.paint(scene.line("27,115 38,111", 1), "#281812", 0.8)
    scene.stain(scene.area(oval(52, 92, 6, 5)), "#ecd4b4", 1, 0.6)
    scene.paint(scene.area(oval(52, 92.5, 3.8, 3.3, -20)), "#0e0806")
    scene.paint(scene.area(oval(51, 91.2, 1.1, 1)), "#ffffff")
