"""A photo with the contribution of its parts to a label: the grid of an explanation, drawn where the network saw it.

1. the picture is the photo as a person sees it, orientation applied, and the grid lies where its cells were computed;
2. the area outside the crop, which the network did not see, is dark.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.explanation.head import Cam
from models.preprocess import decode

LONGEST = 1024  # pixels of the longer side: a phone's photo would take seconds, and tens of megabytes as PNG
FOR, AGAINST = (230, 60, 20), (30, 90, 230)
STRENGTH = 0.65  # share of the colour at the strongest cell
UNSEEN = 0.45  # brightness outside the crop


def draw(encoded: bytes, cam: Cam, max_pixels: int) -> bytes:
    """The encoded photo -> PNG. Red raises the label's logit, blue lowers it; the strongest cell sets the scale.

    Raises ImageError.
    """
    content = BytesIO()
    over(decode(encoded, max_pixels), cam, LONGEST).save(content, "PNG")
    return content.getvalue()


def over(photo: Image.Image, cam: Cam, longest: int) -> Image.Image:
    """The same for an upright RGB photo, at most `longest` pixels long."""
    scale = min(1.0, longest / max(photo.size))
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    left, top, right, bottom = (round(edge * scale) for edge in cam.box)
    box = left, top, max(left + 1, right), max(top + 1, bottom)
    small = photo.resize(size, Image.Resampling.LANCZOS)
    picture = small.point(lambda value: int(value * UNSEEN))
    picture.paste(_coloured(small.crop(box), cam.grid), box[:2])
    ImageDraw.Draw(picture).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline="white")
    return picture


def _coloured(seen: Image.Image, grid: NDArray[np.float64]) -> Image.Image:
    """The part that the network saw, under the grid, which is stretched over it."""
    heat = Image.fromarray((grid / max(float(np.abs(grid).max()), np.finfo(np.float32).tiny)).astype(np.float32))
    shares = np.clip(np.asarray(heat.resize(seen.size, Image.Resampling.BICUBIC)), -1, 1)[..., None]
    colours = np.where(shares > 0, np.array(FOR, np.float32), np.array(AGAINST, np.float32))
    mixed = np.asarray(seen, np.float32) + (colours - np.asarray(seen, np.float32)) * np.abs(shares) * STRENGTH
    return Image.fromarray(mixed.round().astype(np.uint8))
