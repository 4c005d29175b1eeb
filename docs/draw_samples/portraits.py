"""A cat and a dog looking at us, a frog on a leaf, a robin on a branch."""

from __future__ import annotations

import numpy as np
from paint import Mask, Scene, box, mirror, oval, smooth, turn, union

LEFT_AND_RIGHT = (-1, 1)


def cat() -> Scene:
    scene = Scene(256, 192, seed=7)
    scene.fill((0, "#c4b096"), (150, "#aa8c70"), (192, "#8c6c54"))
    scene.texture(scene.everywhere, scene.noise(70) + 0.5 * scene.noise(30), 0.18)
    scene.paint(scene.area("0,0 70,0 58,192 0,192"), "#d6ccbe", 0.7)
    scene.paint(scene.area("200,0 256,0 256,192 214,192"), "#785a4a", 0.6)
    scene.blur(7)
    chest = scene.area(smooth("70,200 72,160 92,140 128,134 164,140 184,160 188,200"))
    scene.solid(chest, "#cca270", "#60422a", 16)
    scene.stain(chest * scene.area(smooth("104,142 128,146 152,142 150,176 128,204 106,176")), "#f4ecde", 4, 0.9)
    scene.fur(chest, "128,60", 9, 5000, 0.3)
    for side in LEFT_AND_RIGHT:
        ear = scene.area(smooth(mirror("148,54 162,30 182,8 190,36 190,78", side)))
        scene.solid(ear, "#cca270", "#60422a", 7)
        scene.fur(ear, "128,120", 7, 2500, 0.25)
        scene.stain(scene.area(smooth(mirror("160,52 169,36 180,22 183,44 180,66", side))), "#d68e80", 1, 0.85)
    _cat_head(scene)
    for side in LEFT_AND_RIGHT:
        _cat_eye(scene, side)
    _cat_mouth(scene)
    return scene


def _cat_head(scene: Scene) -> None:
    outline = "128,38 156,42 180,58 192,84 194,106 184,128 160,146 128,154 96,146 72,128 62,106 64,84 76,58 100,42"
    head = scene.area(smooth(outline))
    scene.stain(scene.area(oval(128, 150, 48, 12)), "#28160a", 5, 0.35)
    scene.solid(head, "#d6ae7c", "#704e32", 20)
    muzzle = [oval(112, 124, 20, 16), oval(144, 124, 20, 16), oval(128, 138, 16, 12)]
    scene.stain(union(map(scene.area, muzzle)), "#faf4ea", 4, 0.95)
    scene.stain(scene.area(smooth("122,96 134,96 138,116 118,116")), "#f0e2ce", 3, 0.6)
    stripes = [scene.line("128,42 128,74", 5.5, 2)]
    for side in LEFT_AND_RIGHT:
        forehead = ("116,42 119,72", "103,46 112,70", "92,50 100,66", "78,62 88,74")
        cheek = ("62,92 84,98", "62,108 86,110", "68,124 88,122")
        stripes += [scene.line(mirror(stripe, side), 6, 1.5) for stripe in (*forehead, *cheek)]
        scene.stain(scene.area(mirror(oval(153, 90, 20, 15, 8), side)), "#462e1e", 2, 0.55)
    scene.stain(union(stripes) * head, "#543620", 1, 0.8)
    scene.fur(head, "128,112", 8, 12000, 0.26)


def _cat_eye(scene: Scene, side: int) -> None:
    lid = smooth("135,96 144,83 156,79 168,84 173,92 164,101 152,104 142,102")
    scene.stain(scene.area(mirror(lid, side)), "#22160e", 1)
    eye = scene.area(smooth(mirror("138,95 146,85 156,82 166,86 170,92 162,99 152,101 143,100", side)))
    scene.solid(eye, "#cee060", "#5a8228", 7, sun=(0.2, 1))
    x = 128 + side * 26
    scene.paint(eye * scene.area(oval(x, 91, 4.2, 10)), "#0a0c08")
    scene.paint(scene.area(oval(x - 4, 86.5, 2.7, 2.4)), "#ffffff")


def _cat_mouth(scene: Scene) -> None:
    nose = scene.area(smooth("119,112 128,110 137,112 133,119 128,122 123,119"))
    scene.solid(nose, "#f09e96", "#a85454", 4)
    for side in LEFT_AND_RIGHT:
        scene.paint(scene.line(mirror("128,121 128,128 136,133 146,131", side), 1.5, 1.5, 1), "#5c362e", 0.9)
        for row, y in enumerate((120, 125, 130)):
            pits = (scene.area(mirror(oval(139 + 6 * n, y - 1 + n / 2, 0.8, 0.8), side)) for n in range(3))
            scene.paint(union(pits), "#6e503c", 0.8)
            whisker = mirror(f"146,{y} 176,{y - 6 + 6 * row} 212,{y - 4 + 11 * row}", side)
            scene.paint(scene.line(whisker, 1.0, 0.5), "#fffffa", 0.9)


def dog() -> Scene:
    scene = Scene(256, 192, seed=8)
    scene.fill((0, "#96be82"), (90, "#74a45a"), (192, "#54823e"))
    scene.texture(scene.everywhere, scene.noise(40, 20) + 0.6 * scene.noise(16, 8), 0.3)
    scene.bokeh(16, 120, ("#e2ecaa",), 12)
    scene.blur(6)
    chest = scene.area(smooth("60,204 66,168 88,148 128,142 168,148 190,168 196,204"))
    scene.solid(chest, "#e8b870", "#8c5828", 16)
    scene.fur(chest, "128,80", 9, 5000, 0.24)
    collar = chest * scene.line("66,158 92,176 128,182 164,176 190,158", 9)
    scene.solid(collar, "#d62c2c", "#6e0c10", 3)
    _dog_head(scene)
    for side in LEFT_AND_RIGHT:
        ear_line = "160,26 180,28 200,48 210,84 206,116 192,128 180,112 176,82 168,54"
        ear = scene.area(smooth(mirror(ear_line, side)))
        scene.solid(ear, "#c48442", "#5c3416", 12)
        scene.fur(ear, "150,10" if side > 0 else "106,10", 10, 5000, 0.24)
        _dog_eye(scene, side)
    _dog_mouth(scene)
    return scene


def _dog_head(scene: Scene) -> None:
    outline = (
        "128,18 152,22 172,36 180,62 178,92 168,116 160,146 144,164 128,168 112,164 96,146 88,116 78,92 76,62 "
        "84,36 104,22"
    )
    head = scene.area(smooth(outline))
    scene.stain(scene.area(oval(128, 164, 42, 12)), "#3c1e08", 6, 0.4)
    scene.solid(head, "#f0c47e", "#a06834", 18)
    scene.stain(scene.area(smooth("122,24 134,24 138,70 150,100 128,110 106,100 118,70")), "#f8daa2", 6, 0.7)
    scene.fur(head, "128,100", 8, 11000, 0.2)


def _dog_eye(scene: Scene, side: int) -> None:
    x = 128 + side * 25
    scene.stain(scene.area(oval(x, 74, 14, 11)), "#784822", 3, 0.6)
    scene.paint(scene.area(oval(x, 75, 10.5, 9.5)), "#24140c")
    scene.solid(scene.area(oval(x, 75.5, 8.8, 8.2)), "#804c22", "#30180a", 6, sun=(0.3, 1))
    scene.paint(scene.area(oval(x, 75, 5, 5)), "#080606")
    scene.paint(scene.area(oval(x - 3, 71.5, 2.5, 2.3)), "#ffffff")
    scene.stain(scene.line(mirror("141,66 153,61 166,67", side), 3, 2), "#966230", 1, 0.7)


def _dog_mouth(scene: Scene) -> None:
    outline = "128,92 148,98 160,118 158,138 144,150 128,152 112,150 98,138 96,118 108,98"
    muzzle = scene.area(smooth(outline))
    scene.stain(muzzle, "#5a3210", 4, 0.18)
    scene.solid(muzzle, "#fce4b6", "#be8a54", 12)
    scene.fur(muzzle, "128,112", 6, 6000, 0.16)
    scene.stain(scene.area(smooth("104,143 128,147 152,143 146,160 128,166 110,160")), "#3a1614", 1)
    tongue = scene.area(smooth("114,150 128,153 142,150 144,168 138,182 128,186 118,182 112,168"))
    scene.solid(tongue, "#f88c92", "#be4854", 6)
    scene.paint(scene.line("128,154 128,176", 1.6), "#be505c", 0.6)
    lip = smooth("128,128 142,132 156,136 156,148 142,152 128,146")
    lips = union(scene.area(mirror(lip, side)) for side in LEFT_AND_RIGHT)
    scene.solid(lips, "#fae0b2", "#c4905a", 6)
    scene.fur(lips, "128,116", 5, 3000, 0.16)
    for side in LEFT_AND_RIGHT:
        scene.paint(scene.line(mirror("128,132 128,144 142,151 156,145", side), 2, 2.4, 1.2), "#3c2216", 0.9)
        pits = (oval(x, y, 0.9, 0.9) for x, y in ((140, 134), (146, 138), (139, 141), (148, 132)))
        scene.paint(union(scene.area(mirror(pit, side)) for pit in pits), "#785030", 0.8)
    scene.paint(scene.line("128,118 128,130", 1.6), "#281814", 0.9)
    nose = scene.area(smooth("128,98 142,99 148,107 142,118 128,124 114,118 108,107 114,99"))
    scene.solid(nose, "#565054", "#0c0a0c", 6)
    scene.paint(union(scene.area(oval(128 + s * 8, 112, 4, 3.2, s * 30)) for s in LEFT_AND_RIGHT), "#040406")
    scene.stain(scene.area(oval(124, 102.5, 8, 2.4)), "#d2d4dc", 1, 0.75)


def frog() -> Scene:
    scene = Scene(256, 192, seed=5)
    scene.fill((0, "#264222"), (100, "#3a5c2c"), (192, "#1e361a"))
    scene.texture(scene.everywhere, scene.noise(50) + 0.6 * scene.noise(20), 0.5)
    scene.bokeh(18, 110, ("#96b45a",), 9)
    scene.blur(4)
    leaf = scene.area(smooth("-20,150 30,122 110,112 200,118 250,138 280,160 230,188 120,204 20,192"))
    scene.solid(leaf, "#7eb846", "#2c5c22", 20, sun=(-0.3, -1))
    veins = union(scene.line(f"128,206 {(128 + x) / 2},160 {x},116", 1.6, 0.8) for x in range(-40, 300, 26))
    scene.paint(veins * leaf, "#a6d26e", 0.5)
    scene.texture(leaf, scene.noise(3), 0.08)
    scene.stain(scene.area(oval(130, 160, 86, 16)), "#0a1a08", 6, 0.55)
    for side in LEFT_AND_RIGHT:
        thigh = scene.area(smooth(mirror("164,104 196,98 216,112 218,134 204,150 178,152 160,140", side)))
        scene.solid(thigh, "#96ce3e", "#265c1a", 11)
        ankle = ("196,148 210,158 230,164", "200,152 218,166 226,172", "196,152 204,168 208,178")
        scene.solid(_toes(scene, side, ankle, 9), "#96ce3e", "#265c1a", 3)
    _frog_body(scene)
    for side in LEFT_AND_RIGHT:
        _frog_eye(scene, side)
        arm = scene.line(mirror("162,126 172,146 158,166", side), 17, 13, 9)
        hand = _toes(scene, side, ("158,166 177,172.5", "158,166 167,181", "158,166 149.5,181", "158,166 139,172.5"), 6)
        scene.stain(hand, "#0a1a08", 2, 0.4)
        scene.solid(union([arm, hand]), "#96ce3e", "#265c1a", 6)
    return scene


def _toes(scene: Scene, side: int, toes: tuple[str, ...], width: float) -> Mask:
    """Toes that end in the round pads of a tree frog."""
    masks = []
    for toe in toes:
        points = mirror(toe, side)
        x, y = points[-1]
        masks += [scene.line(points, width, 4), scene.area(oval(x, y, 3.8, 3.2))]
    return union(masks)


def _frog_body(scene: Scene) -> None:
    outline = "128,72 160,76 182,96 188,122 176,148 150,162 128,164 106,162 80,148 68,122 74,96 96,76"
    body = scene.area(smooth(outline))
    scene.solid(body, "#96ce3e", "#265c1a", 24)
    belly = scene.area(smooth("128,118 158,116 170,128 162,148 146,160 128,162 110,160 94,148 86,128 98,116"))
    scene.stain(belly, "#eceebe", 4, 0.95)
    scene.texture(belly, scene.noise(4), 0.08)
    outline = "128,54 152,58 176,74 188,96 178,112 152,120 128,122 104,120 78,112 68,96 80,74 104,58"
    head = scene.area(smooth(outline))
    scene.stain(scene.area(smooth("74,104 128,120 182,104 176,122 128,132 80,122")), "#283c0a", 4, 0.3)
    scene.solid(head, "#a4d848", "#3a7622", 18)
    scene.texture(union([head, body]), scene.noise(3) + 0.6 * scene.noise(7), 0.09)
    spots = np.clip(scene.noise(13, 10) - 0.35, 0, 0.5) * 2
    scene.paint(spots * head * scene.below(104, -30), "#34661c", 0.7)
    scene.stain(scene.line("72,101 92,111 128,115 164,111 184,101", 5), "#dce496", 1, 0.7)
    scene.paint(scene.line("72,98 92,108 128,112 164,108 184,98", 1.2, 2.2, 1.2), "#243a10")
    scene.paint(union(scene.area(oval(x, 88, 1.8, 1.3)) for x in (120, 136)), "#1c320e")


def _frog_eye(scene: Scene, side: int) -> None:
    x = 128 + side * 38
    scene.solid(scene.area(oval(x, 60, 21, 20)), "#aadc4e", "#3c7824", 9)
    x += side * 2
    scene.solid(scene.area(oval(x, 58, 14.5, 14)), "#face46", "#aa6014", 7)
    scene.paint(scene.area(oval(x, 58, 11, 6)), "#0c0c08")
    scene.paint(scene.area(oval(x - 5, 53, 3.4, 2.8)), "#fffffa", 0.95)
    scene.paint(scene.line(f"{x - 17},66 {x},73 {x + 17},66", 1.2), "#285014", 0.6)


def bird() -> Scene:
    scene = Scene(192, 256, seed=6)
    scene.fill((0, "#b0c8be"), (140, "#8cac82"), (256, "#608054"))
    scene.texture(scene.everywhere, scene.noise(50) + 0.7 * scene.noise(24), 0.3)
    scene.bokeh(24, 256, ("#dce2aa", "#466e3c"), 13)
    scene.blur(5)
    _branch(scene)
    tail = scene.area(smooth("72,172 86,190 66,222 50,244 40,240 50,208"))
    scene.solid(tail, "#806852", "#423228", 5)
    scene.fur(tail, "80,120", 12, 1500, 0.25)
    _robin(scene)
    _wing(scene)
    scene.solid(scene.area(smooth("146,70 158,74 166,79 157,82 147,82")), "#6e645c", "#24201e", 3)
    scene.paint(scene.line("148,76.5 164,79", 0.8), "#141212")
    scene.paint(scene.area(oval(131, 72, 6.6, 6.6)), "#5a341e", 0.8)
    scene.solid(scene.area(oval(131, 72, 5.4, 5.4)), "#3a2e28", "#080606", 3)
    scene.paint(scene.area(oval(129.4, 70, 1.6, 1.6)), "#ffffff")
    for x in (108, 128):
        leg = [scene.line(f"{x},188 {x + 3},198 {x + 1},205", 3.2, 2.4)]
        leg += [scene.line(f"{x + 1},203 {x + 1 + t},206 {x + 1 + t * 1.3},211", 2.6, 2) for t in (-9, -1, 8)]
        scene.paint(union(leg), "#604432")
    return scene


def _branch(scene: Scene) -> None:
    branch = scene.line("-10,214 50,204 110,206 204,188", 15, 13, 12, 8)
    scene.solid(branch, "#967a5c", "#3a2a1e", 5)
    scene.texture(branch, scene.noise(14, 1.6) + 0.5 * scene.noise(3), 0.28)
    scene.solid(scene.line("140,200 166,222 184,244", 6, 4, 2), "#8c7054", "#3a2a1e", 3)
    for x, y, angle in ((170, 224, 30), (182, 238, 60), (30, 204, -130)):
        leaf = turn(smooth(f"{x},{y} {x + 9},{y - 6} {x + 22},{y} {x + 9},{y + 6}"), x, y, angle)
        scene.solid(scene.area(leaf), "#8cb446", "#3c6822", 4)


def _robin(scene: Scene) -> None:
    outline = (
        "112,52 134,56 148,72 150,92 158,116 158,146 146,174 122,192 96,194 74,184 66,166 68,140 78,112 86,88 90,66"
    )
    body = scene.area(smooth(outline))
    scene.solid(body, "#967c62", "#544032", 20)
    outline = "126,66 146,70 152,92 160,116 158,142 142,158 122,158 112,140 112,116 108,96 108,78"
    breast = scene.area(smooth(outline)) * body
    scene.stain(breast, "#e8702c", 2)
    scene.texture(breast * scene.area(box(140, 50, 192, 200)), scene.everywhere, -0.12)
    belly = scene.area(smooth("118,154 144,152 150,164 136,184 112,193 94,192 96,176"))
    scene.stain(belly * body, "#f0e8d8", 4, 0.95)
    scene.stain(scene.area(smooth("112,142 122,158 112,176 98,184 96,170")) * body, "#beb4a4", 4, 0.7)
    scene.fur(body, "118,20", 7, 9000, 0.22)


def _wing(scene: Scene) -> None:
    outline = "88,104 104,112 114,134 110,160 92,184 70,206 60,208 62,186 66,150 76,118"
    wing = scene.area(smooth(outline))
    scene.stain(wing, "#000000", 3, 0.35)
    scene.solid(wing, "#92765a", "#4e3a2c", 10)
    scene.fur(wing, "110,80", 8, 3000, 0.2)
    for n, (x, y) in enumerate(((104, 150), (100, 162), (94, 172), (86, 182))):
        scene.paint(scene.line(f"{x},{y} {x - 14},{y + 12} 62,{206 - 3 * n}", 1.4, 0.8), "#34261e", 0.75)
    for n in range(3):
        bar = f"{106 - 6 * n},{128 + 13 * n} {96 - 6 * n},{134 + 13 * n} {80 - 4 * n},{136 + 13 * n}"
        scene.paint(scene.line(bar, 1.6), "#c4ac8c", 0.7)
