"""Picture -> the square of pixels that is augmented, by the key `crop`.

1. `padded` starts from the square that evaluation and the service cut, pixel for pixel; shifting it comes later;
2. `random_resized` takes a random part of the whole picture, with a share of its area within `crop_scale`: others in
   each epoch, and the same ones whatever the number of threads and shards.

The random part is that of Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, with torchvision's bounds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.manifest import Preprocess
from training.config import TrainConfig
from training.data.images import Images, in_colours

ASPECT = (3 / 4, 4 / 3)  # width / height
_ATTEMPTS = 10  # to find a part that fits; else a centred one

Box = tuple[int, int, int, int]  # left, top, right, bottom


def square(images: Images, index: int, config: TrainConfig, spec: Preprocess, epoch: int) -> NDArray[np.uint8]:
    """uint8 RGB (S, S, 3) of the epoch numbered from 0. Raises DataError."""
    if config.crop == "padded":
        return images.kept_square(index, spec)
    picture = images.kept_picture(index, spec.icc)
    box = random_box(*picture.size, config.crop_scale, np.random.default_rng((config.seed, epoch, index)))
    side = config.image_size
    resized = picture.crop(box).resize((side, side), Image.Resampling[config.interpolation.upper()])
    return in_colours(resized, spec.icc)


def random_box(width: int, height: int, scale: tuple[float, float], rng: np.random.Generator) -> Box:
    """A part with an area within `scale` (shares of the picture's) and ASPECT, anywhere in the picture.

    It is uniform in area and in the logarithm of the aspect.
    """
    low, high = (math.log(aspect) for aspect in ASPECT)
    for _ in range(_ATTEMPTS):
        area, aspect = rng.uniform(*scale) * width * height, math.exp(rng.uniform(low, high))
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            left, top = int(rng.integers(0, width - across + 1)), int(rng.integers(0, height - down + 1))
            return left, top, left + across, top + down
    return _centred_box(width, height)


def _centred_box(width: int, height: int) -> Box:
    """The largest part of ASPECT in the middle of a picture that is longer or thinner."""
    across = min(width, max(1, round(height * ASPECT[1])))
    down = min(height, max(1, round(width / ASPECT[0])))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down
