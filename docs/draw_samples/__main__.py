"""Draw the sample pictures: `python docs/draw_samples [FOLDER]`, by default into models/samples.

They show things that the default bundle knows and are drawn, not photographed, so that they are ours to give away.
Together they cover what clients send: JPEG upright and turned by EXIF, PNG with a palette and with alpha.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from food import banana, lemon, mushroom, orange, pretzel
from paint import Scene
from PIL import ExifTags, Image
from portraits import cat, dog
from things import goldfish, ladybug, school_bus, teapot, umbrella

FOLDER = Path(__file__).parents[2] / "models/samples"
QUALITY = 88


def jpeg(scene: Scene, path: Path) -> None:
    scene.image().save(path, quality=QUALITY, optimize=True)


def turned_jpeg(scene: Scene, path: Path) -> None:
    """As a phone held upright stores it: lying on its side, with EXIF orientation 6."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = scene.image().transpose(Image.Transpose.ROTATE_90)
    stored.save(path, quality=QUALITY, optimize=True, exif=exif)


def png_with_palette(scene: Scene, path: Path) -> None:
    colours = scene.image(grain=1.0).quantize(dither=Image.Dither.NONE)
    colours.save(path, optimize=True)


def png_with_alpha(scene: Scene, path: Path) -> None:
    image, alpha = scene.image(grain=0.0), Image.fromarray(np.rint(scene.cover * 255).astype(np.uint8))
    image.paste("white", mask=alpha.point(lambda cover: 255 * (cover == 0)))  # nobody sees it, and it packs well
    image.putalpha(alpha)
    image.save(path, optimize=True)


SAMPLES: dict[str, tuple[Callable[[], Scene], Callable[[Scene, Path], None]]] = {
    "banana.png": (banana, png_with_palette),
    "cat.jpg": (cat, turned_jpeg),
    "dog.jpg": (dog, jpeg),
    "goldfish.jpg": (goldfish, jpeg),
    "ladybug.jpg": (ladybug, jpeg),
    "lemon.jpg": (lemon, jpeg),
    "mushroom.jpg": (mushroom, jpeg),
    "orange.jpg": (orange, jpeg),
    "pretzel.png": (pretzel, png_with_alpha),
    "school_bus.jpg": (school_bus, jpeg),
    "teapot.jpg": (teapot, jpeg),
    "umbrella.jpg": (umbrella, jpeg),
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (draw, save) in SAMPLES.items():
        save(draw(), folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
