"""A cat and a dog looking at us."""

from __future__ import annotations

from paint import Scene, mirror, oval, smooth, union

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
