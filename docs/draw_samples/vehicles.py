"""A ship at sea, an aeroplane in the sky, a lorry on a road, a car cut out with its shadow."""

from __future__ import annotations

import numpy as np
from paint import Array, Mask, Points, Scene, box, move, oval, smooth, soften, turn, union


def ship() -> Scene:
    scene = Scene(256, 192, seed=1)
    _sea(scene)
    _superstructure(scene)
    for x in (84, 102):
        funnel = scene.area(f"{x},32 {x + 13},32 {x + 12},56 {x - 2},56")
        scene.solid(funnel, "#e2462c", "#961e16", 4, sun=(-1, -0.2))
        scene.paint(funnel * scene.area(box(x - 3, 30, x + 16, 37)), "#1e1e22")
    for mast in ("152,68 153,28", "40,104 38,74", "206,99 208,66"):
        scene.paint(scene.line(mast, 1.5, 0.9), "#e1e4e8")
    for rope in ("153,30 208,68", "38,76 86,34", "153,30 100,36"):
        scene.paint(scene.line(rope, 0.6), "#d2d8de", 0.6)
    _hull(scene)
    return scene


def _sea(scene: Scene) -> None:
    scene.fill((0, "#568ecd"), (70, "#96bee2"), (112, "#e2e9eb"), (113, "#3c6e8c"), (192, "#103454"))
    scene.clouds(100, 0.85)
    sea = scene.below(112)
    waves = scene.noise(18, 2.5) * (0.1 + scene.below(108, 80)) + 0.6 * scene.noise(7, 1.6)
    scene.texture(sea, waves, 0.28)
    scene.paint(sea * (scene.noise(9, 1.5) - 0.55) * 2.2, "#ebf5fa", 0.6)


def _superstructure(scene: Scene) -> None:
    decks = ("52,84 180,84 184,104 50,106", "62,68 164,68 168,86 60,86", "72,54 140,54 146,70 70,70")
    for deck in (*decks, "118,42 136,42 142,56 116,56"):
        scene.solid(scene.area(deck), "#fffffd", "#ced4de", 5)
    for left, right, y in ((58, 178, 91), (68, 160, 74), (78, 138, 59)):
        windows = (scene.area(box(x, y, x + 4.5, y + 5)) for x in range(left, right, 8))
        scene.paint(union(windows), "#344a62")
    scene.paint(scene.area("119,45 137,45 139,50 118,50"), "#283a50")


def _hull(scene: Scene) -> None:
    hull = scene.area("30,104 226,98 214,136 206,140 48,140 38,126")
    scene.stain(scene.area("40,140 210,140 196,162 60,162"), "#081c30", 5, 0.45)
    scene.solid(hull, "#304268", "#121a30", 12)
    scene.paint(hull * scene.below(128), "#962822", 0.95)
    scene.paint(scene.line("31,106 226,100", 1.6), "#eef0f2")
    scene.paint(union(scene.area(oval(x, 115, 1.7, 1.7)) for x in range(54, 206, 11)), "#c8d6e2")
    foam = np.clip(scene.noise(6, 3) + 0.35, 0, 1)
    scene.paint(soften(scene.line("44,141 120,142.5 206,141", 5, 5), 1) * foam, "#f0f6fa", 0.95)
    scene.paint(soften(scene.line("206,140 222,142 236,145", 4, 1), 1) * foam, "#f0f6fa", 0.8)
    scene.paint(soften(scene.line("44,141 24,144 4,148", 5, 9), 1) * foam, "#f0f6fa", 0.55)


def airplane() -> Scene:
    scene = Scene(256, 192, seed=2)
    scene.fill((0, "#346ebc"), (110, "#70a8dc"), (192, "#bad6ec"))
    cover = scene.noise(90, 30) + 0.6 * scene.noise(36, 14) + 0.35 * scene.noise(14, 7)
    scene.paint(cover * 0.9 - 0.05, "#fcfcff", 0.75)

    def climbing(points: Points) -> Array:
        return (turn(points, 122, 98, -11) - (122, 98)) * 0.9 + (124, 96)

    def part(points: Points) -> Mask:
        return scene.area(climbing(points))

    scene.solid(part("146,88 116,88 92,50 101,49"), "#c4cad4", "#969eac", 5)
    scene.solid(part("52,88 36,88 16,72 24,71"), "#bec4ce", "#969caa", 4)
    fin = part("26,90 12,46 30,45 68,86")
    scene.solid(fin, "#285cb0", "#122e6e", 8, sun=(-0.6, -0.5))
    scene.paint(fin * part("10,60 60,52 60,60 10,68"), "#f0f4fa", 0.9)
    outline = "236,99 229,91 212,85 180,83 100,83 44,86 20,87 30,94 64,104 110,109 180,110 214,108 230,104"
    body = part(smooth(outline))
    scene.solid(body, "#ffffff", "#788296", 11, sun=(-0.15, -1))
    scene.paint(body * part(box(10, 97.5, 240, 101)), "#2454a8", 0.95)
    scene.paint(union(part(box(x, 91, x + 2.3, 94.6)) for x in range(62, 206, 5)), "#28364e")
    scene.paint(part("216,89.5 225,91 229,94.5 217,94.5"), "#223046")
    scene.paint(union(part(box(x, 88.5, x + 4, 98)) for x in (84, 148, 204)), "#b4bcc8", 0.6)
    for x, y in ((136, 124), (106, 140)):
        engine = move("16,-6 17,0 15,6 0,8 -14,4 -16,0 -14,-4 0,-8", x, y)
        scene.solid(part(smooth(engine)), "#ecf0f6", "#5c6476", 5)
        scene.paint(part(oval(x + 15, y, 2.6, 6)), "#1e2430")
    scene.stain(part("150,104 110,104 100,110 146,110"), "#000000", 2, 0.35)
    scene.solid(part("156,103 108,103 44,158 50,163 62,160 132,118"), "#e8ecf2", "#8c96a8", 8, sun=(0.2, -1))
    scene.paint(scene.line(climbing("112,106 50,158"), 1.0), "#788290", 0.8)
    scene.solid(part("58,90 34,90 10,108 17,110 30,107"), "#e2e7ee", "#9099aa", 4)
    return scene


def truck() -> Scene:
    scene = Scene(256, 192, seed=3)
    _road(scene)
    scene.stain(scene.area("26,148 232,148 238,160 20,160"), "#000000", 4, 0.7)
    scene.paint(scene.area(box(34, 130, 220, 142)), "#222428")
    scene.solid(scene.area(box(24, 48, 164, 132)), "#fcfcfa", "#c4cad4", 10, sun=(-0.2, -1))
    ribs = union(scene.area(box(x, 49, x + 1, 131)) for x in range(32, 164, 8))
    scene.paint(ribs, "#aab0bc", 0.45)
    scene.paint(scene.area("24,96 164,78 164,96 24,116"), "#206eb2", 0.95)
    scene.paint(scene.area("24,120 164,100 164,104 24,125"), "#f0aa28", 0.95)
    scene.paint(scene.area(box(24, 128, 164, 132)), "#6e747e")
    _cab(scene)
    scene.solid(scene.area(box(150, 130, 178, 144)), "#bec2c8", "#5a5e66", 4)
    for x in (50, 80, 132, 206):
        wheel(scene, x, 144, 14)
    return scene


def _road(scene: Scene) -> None:
    scene.fill((0, "#70a6d6"), (80, "#c4dcec"), (104, "#e2eae8"), (192, "#d2d6c8"))
    scene.clouds(110, 0.7)
    hills = scene.area(smooth("-30,110 20,92 70,100 120,84 180,98 230,86 290,104 290,150 -30,150"))
    scene.paint(hills, "#608660")
    scene.texture(hills, scene.noise(12, 6) + 0.6 * scene.noise(4, 3), 0.25)
    field = scene.area("0,116 256,112 256,150 0,150")
    scene.paint(field, "#7a9248")
    scene.texture(field, scene.noise(10, 2) + 0.5 * scene.noise(3, 1.5), 0.2)
    scene.blur(1)
    road = scene.below(142)
    scene.paint(road, "#626266")
    scene.texture(road, 0.6 * scene.noise(40, 3) + scene.noise(2, 1.2), 0.12)
    scene.paint(scene.area(box(0, 142, 256, 144)), "#d6d4cc")
    for x in range(-20, 256, 56):
        scene.paint(scene.area(f"{x},180 {x + 30},180 {x + 28},183.5 {x - 3},183.5"), "#e2e0d6")


def _cab(scene: Scene) -> None:
    outline = "170,132 169,80 172,66 184,60 206,60 214,66 222,92 227,104 228,126 224,136 196,138"
    scene.solid(scene.area(smooth(outline)), "#e23a2c", "#841214", 9)
    scene.solid(scene.area("168,48 200,56 206,62 168,66"), "#d63428", "#961a18", 5)
    scene.solid(scene.area("186,70 206,70 215,94 186,94"), "#bad6e8", "#3c5c78", 8, sun=(-1, -1))
    scene.paint(scene.area("192,70 198,70 190,94 186,90"), "#f0f8fc", 0.5)
    scene.paint(scene.line("183,68 183,132", 0.8), "#6e0e10")
    scene.paint(scene.line("184,98 216,98", 0.8), "#6e0e10", 0.7)
    scene.paint(scene.area(box(187, 102, 194, 104.5)), "#280a0a")
    scene.paint(scene.area("221,108 228,108 228.5,116 222,116"), "#fff4c8")
    scene.paint(scene.area("196,128 230,128 231,138 196,138"), "#3c3e44")
    scene.paint(scene.area("216,72 222,74 221,88 216,86"), "#1e1e22")
    scene.paint(scene.area(box(165, 62, 169, 130)), "#2e3036")


def wheel(scene: Scene, x: float, y: float, radius: float) -> None:
    scene.solid(scene.area(oval(x, y, radius, radius)), "#343438", "#0c0c0e", 3)
    scene.solid(scene.area(oval(x, y, radius * 0.58, radius * 0.58)), "#c4c8ce", "#60646c", 3)
    hole = oval(x, y - radius * 0.42, radius * 0.09, radius * 0.15)
    scene.paint(union(scene.area(turn(hole, x, y, angle)) for angle in range(0, 360, 72)), "#282a2e")
    scene.paint(scene.area(oval(x, y, radius * 0.14, radius * 0.14)), "#464a50")


def automobile() -> Scene:
    """Everything but the car and its shadow is transparent."""
    scene = Scene(256, 192, seed=4)
    shadow = scene.area("30,142 226,142 236,154 20,154")
    scene.fill((0, "#141418"))
    outline = (
        "18,124 17,112 24,103 50,97 72,92 92,70 112,62 150,61 178,68 202,90 226,94 236,102 238,122 232,136 "
        "200,139 60,139 24,136"
    )
    body = scene.area(smooth(outline))
    scene.solid(body, "#4696ec", "#082868", 13, sun=(-0.2, -1))
    _windows(scene)
    for gap in ("88,96 86,112 90,134", "134,96 135,134", "186,95 188,108 176,124"):
        scene.paint(scene.line(gap, 0.9), "#061c4a", 0.8)
    scene.paint(scene.line("30,108 90,103 180,102 232,106", 1.0), "#bedcfa", 0.55)
    scene.paint(union(scene.line(f"{x},107 {x + 9},106.6", 2) for x in (122, 172)), "#d2e2f4")
    scene.solid(scene.area(smooth("20,108 30,102 46,101 40,110 24,114")), "#fffce6", "#aab0b6", 3)
    scene.paint(scene.area(smooth("230,100 236,104 236,113 227,110")), "#ce1e22")
    scene.paint(scene.area("17,122 34,122 36,130 19,131"), "#161a20")
    scene.paint(scene.area("56,132 206,132 204,139 58,139"), "#0e121a", 0.85)
    scene.solid(scene.area(smooth("86,94 92,88 100,89 99,96 88,98")), "#4696ec", "#082868", 3)
    for x in (66, 190):
        scene.paint(scene.area(oval(x, 136, 22, 22)) * body, "#0a0c10")
        wheel(scene, x, 138, 18)
    wheels = [scene.area(oval(x, 138, 18, 18)) for x in (66, 190)]
    scene.cover = union([body, *wheels, 0.75 * soften(shadow, 4)])
    return scene


def _windows(scene: Scene) -> None:
    glass = scene.area(smooth("82,93 97,75 113,68 148,67 172,73 191,91 186,94 140,95 90,95"))
    scene.solid(glass, "#aac8dc", "#162434", 8, sun=(-0.5, -1))
    scene.paint(glass * scene.area("128,60 134,60 138,98 131,98"), "#12428c")
    for pane, opacity in (("100,66 112,66 94,98 84,98", 0.35), ("150,66 158,66 150,98 142,98", 0.25)):
        scene.paint(glass * scene.area(pane), "#ebf5fa", opacity)
