"""What things stand on, the shadow below them and the light on them."""

from __future__ import annotations

from paint import Scene, oval


def table(scene: Scene, edge: float, wood: tuple[str, str], wall: tuple[str, str]) -> None:
    """A table before a wall that is out of focus."""
    scene.fill((0, wall[0]), (edge - 1, wall[1]), (edge, wood[0]), (scene.height, wood[1]))
    scene.texture(scene.below(edge), scene.noise(90, 3) + 0.6 * scene.noise(40, 1.5), 0.16)
    scene.texture(scene.everywhere - scene.below(edge), scene.noise(60), 0.08)
    scene.blur(1)


def shadow(scene: Scene, x: float, y: float, rx: float, ry: float, opacity: float = 0.55) -> None:
    scene.stain(scene.area(oval(x, y, rx, ry)), "#1c120a", 5, opacity)


def shine(scene: Scene, x: float, y: float, rx: float, ry: float, tilt: float, opacity: float = 0.6) -> None:
    scene.stain(scene.area(oval(x, y, rx, ry, tilt)), "#fffdf4", 3, opacity)
