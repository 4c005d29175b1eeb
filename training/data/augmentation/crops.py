"""Picture -> the square of pixels to augment, as the key `crop` says.

1. `padded` starts from the square that evaluation and the service cut, pixel for pixel; it is shifted later;
2. `random_resized` takes a random part whose share of the picture's area is within `crop_scale`: another part in each
   epoch, and the same part whatever the number of threads and shards;
3. vertical flips, if any, do not depend on the horizontal ones.

The random part follows Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, with torchvision's bounds.
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
_ATTEMPTS = 10  # to find a part that fits; otherwise a centred one is taken

Box = tuple[int, int, int, int]  # left, top, right, bottom


def square(images: Images, index: int, config: TrainConfig, spec: Preprocess, epoch: int) -> NDArray[np.uint8]:
    """uint8 RGB (S, S, 3) for an epoch, counted from 0. Raises DataError."""
    pixels = _unflipped(images, index, config, spec, epoch)
    # Not by MindData's operator, which would flip the same images as its horizontal flip: both draw the same numbers.
    flips = config.vflip and np.random.default_rng((config.seed, epoch, index, 1)).random() < config.vflip
    return np.ascontiguousarray(pixels[::-1]) if flips else pixels


def _unflipped(images: Images, index: int, config: TrainConfig, spec: Preprocess, epoch: int) -> NDArray[np.uint8]:
    if config.crop == "padded":
        return images.kept_square(index, spec)
    picture = images.kept_picture(index, spec.icc)
    box = random_box(*picture.size, config.crop_scale, np.random.default_rng((config.seed, epoch, index)))
    side = config.image_size
    resized = picture.crop(box).resize((side, side), Image.Resampling[config.interpolation.upper()])
    return in_colours(resized, spec.icc)


def random_box(width: int, height: int, scale: tuple[float, float], rng: np.random.Generator) -> Box:
    """A part anywhere in the picture, its area within `scale` (shares of the picture's) and its aspect within ASPECT.

    Its area and the logarithm of its aspect are uniformly distributed.
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
    """The largest part within ASPECT in the middle of a longer or thinner picture."""
    across = min(width, max(1, round(height * ASPECT[1])))
    down = min(height, max(1, round(width / ASPECT[0])))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down
