"""Draw the sample pictures: `python docs/draw_samples [FOLDER]`, by default into models/samples.

They show the ten classes of CIFAR-10 and are drawn, not photographed, so that they are ours to give away. Together
they take the ways that clients' pictures take: JPEG upright and turned by EXIF, PNG with a palette and with alpha.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from meadow import deer, horse
from paint import Scene
from PIL import ExifTags, Image
from portraits import bird, cat, dog, frog
from vehicles import airplane, automobile, ship, truck

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
    image = scene.image(grain=0.0)
    image.putalpha(Image.fromarray(np.rint(scene.cover * 255).astype(np.uint8)))
    image.save(path, optimize=True)


SAMPLES: dict[str, tuple[Callable[[], Scene], Callable[[Scene, Path], None]]] = {
    "airplane.png": (airplane, png_with_palette),
    "automobile.png": (automobile, png_with_alpha),
    "bird.jpg": (bird, turned_jpeg),
    "cat.jpg": (cat, jpeg),
    "deer.jpg": (deer, jpeg),
    "dog.jpg": (dog, jpeg),
    "frog.jpg": (frog, jpeg),
    "horse.jpg": (horse, jpeg),
    "ship.jpg": (ship, jpeg),
    "truck.jpg": (truck, jpeg),
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (draw, save) in SAMPLES.items():
        save(draw(), folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
