"""The augmentation of a training image, by MindData's C++ operators.

1. a policy's operations keep size and type, and do what Pillow's of the same name do (Equalize: what OpenCV's does);
2. an augmentation that the recipe does not request changes no pixel: with all off, the tensor is that of evaluation;
3. pixels that a policy's shift, shear or rotation leaves empty get the mean colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mindspore.dataset import vision

from training.config import TrainConfig
from training.config.policies import Operation, Policy

Fill = tuple[int, int, int]
CHOICES = 1024  # sequences of operations that an epoch's images choose from; drawn anew for each epoch


def shift_and_flip(config: TrainConfig) -> list[Any]:
    """uint8 (S, S, 3) -> the same. `crop: padded` pads the square and crops it back to size at random."""
    moves = config.crop == "padded" and config.crop_padding > 0
    shift = [vision.RandomCrop(config.image_size, config.crop_padding)] if moves else []
    return [*shift, vision.RandomHorizontalFlip(config.hflip)]


def jitter(config: TrainConfig) -> list[Any]:
    """Brightness, contrast and saturation, each scaled at random by up to 1 +- color_jitter."""
    strength = config.color_jitter
    limits = (max(0.0, 1 - strength), 1 + strength)
    return [vision.RandomColorAdjust(limits, limits, limits)] if strength else []


def normalise(config: TrainConfig) -> list[Any]:
    """uint8 (S, S, 3) -> float32 (3, S, S), bit for bit as models.preprocess, with its float32 constants."""
    mean, std = ((np.asarray(values, np.float32) * np.float32(255)).tolist() for values in (config.mean, config.std))
    return [vision.Normalize(mean, std), vision.HWC2CHW()]


def chain(policy: Policy, fill: Fill, rng: np.random.Generator) -> Any:
    """One chain of the policy, uint8 (S, S, 3) -> the same: each image gets one of CHOICES drawn sequences.

    They are drawn here, not by several random operators in a row: MindData gives all random operators of a pipeline the
    same seed, so two that draw in the same way make the same choice for each image (MindSpore 2.10).
    """
    return vision.RandomSelectSubpolicy([_sequence(policy.draw(rng), fill) for _ in range(CHOICES)])


def mean_colour(config: TrainConfig) -> Fill:
    red, green, blue = (round(255 * value) for value in config.mean)
    return red, green, blue


def _sequence(operations: Sequence[Operation], fill: Fill) -> list[tuple[Any, float]]:
    """MindData needs an operation in each sequence: an empty one gets an operation that is never applied."""
    built = [operator for operation in operations if (operator := build(operation, fill))]
    return [(operator, 1.0) for operator in built] or [(vision.Invert(), 0.0)]


def build(operation: Operation, fill: Fill) -> Any | None:
    """The MindData operator; None for an operation that changes nothing."""
    if operation == Operation(operation.kind, _NEUTRAL.get(operation.kind, math.nan)):
        return None
    return _OPERATORS[operation.kind](operation.value, fill)


def _affine(
    fill: Fill, *, degrees: float = 0, shear: tuple[float, float] = (0, 0), shift: tuple[float, float] = (0, 0)
) -> Any:
    shear_degrees = [math.degrees(math.atan(slope)) for slope in shear]
    return vision.Affine(degrees, list(shift), 1.0, shear_degrees, vision.Inter.BILINEAR, fill)


_NEUTRAL = {
    **dict.fromkeys(("rotate", "shear_x", "shear_y", "translate_x", "translate_y"), 0.0),
    **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), 1.0),
    "posterize": 8.0,
    "solarize": 256.0,
}
_OPERATORS: dict[str, Callable[[float, Fill], Any]] = {
    "auto_contrast": lambda _value, _fill: vision.AutoContrast(),
    "equalize": lambda _value, _fill: vision.Equalize(),
    "invert": lambda _value, _fill: vision.Invert(),
    # not vision.Rotate, which swaps red and blue of the fill colour (MindSpore 2.10)
    "rotate": lambda degrees, fill: _affine(fill, degrees=degrees),
    "shear_x": lambda slope, fill: _affine(fill, shear=(slope, 0)),
    "shear_y": lambda slope, fill: _affine(fill, shear=(0, slope)),
    "translate_x": lambda share, fill: _affine(fill, shift=(share, 0)),
    "translate_y": lambda share, fill: _affine(fill, shift=(0, share)),
    "posterize": lambda bits, _fill: vision.Posterize(int(bits)),
    "solarize": lambda least, _fill: vision.Solarize((least, 255.0)),
    "color": lambda factor, _fill: vision.AdjustSaturation(factor),
    "contrast": lambda factor, _fill: vision.AdjustContrast(factor),
    "brightness": lambda factor, _fill: vision.AdjustBrightness(factor),
    "sharpness": lambda factor, _fill: vision.AdjustSharpness(factor),
}
