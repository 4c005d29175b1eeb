"""AutoAugment, RandAugment and AugMix policies in timm's notation -> operations with their magnitudes.

1. an invalid policy string is an error that shows the valid forms;
2. with `inc1`, a magnitude of 0 changes nothing and a greater one changes more;
3. the same random generator draws the same operations; they are data, which training.data.augmentation.augment applies.

AutoAugment: Cubuk et al., CVPR 2019, arXiv:1805.09501 (ranges of table 6, ImageNet policy of table 9). RandAugment:
Cubuk et al., 2020, arXiv:1909.13719. AugMix: Hendrycks et al., ICLR 2020, arXiv:1912.02781. The strings, and what a
level means for each operation, follow timm; its SolarizeAdd, which is in none of the papers, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

MAX_LEVEL = 10.0
UNIFORM = 100.0  # a deviation of this or more means: uniform in 0..m
VALID_FORMS = (
    "rand-m<0..10>[-n<layers>][-p<probability>][-mstd<deviation>][-inc<0|1>], original, originalr, "
    "augmix-m<0..10>[-w<chains>][-d<depth>][-a<alpha>][-mstd<deviation>]; e.g. rand-m9-mstd0.5-inc1, augmix-m5-w4-d2"
)


@dataclass(frozen=True)
class Operation:
    """What `value` means depends on the kind of operation.

    It is a rotation in degrees, a shear as a slope, a shift as a fraction of the side, the factor of an enhancement (1
    leaves the image unchanged), the number of bits kept, or the lowest pixel value to invert (256: none). It is 0 for
    an operation without a parameter.
    """

    kind: str
    value: float = 0.0


class Policy(Protocol):
    """With `width` > 0, AugMix applies that many chains of operations to the image and mixes the results with it."""

    @property
    def width(self) -> int: ...

    def draw(self, rng: np.random.Generator) -> tuple[Operation, ...]:
        """The operations for one image, or for one chain, in order; may be empty."""


_Scale = tuple[str, Callable[[float, int], float]]  # kind, and (level 0..10, sign) -> value


def _enhance(kind: str) -> dict[str, _Scale]:
    return {
        kind.capitalize(): (kind, lambda level, sign: 0.1 + 1.8 * level / MAX_LEVEL),
        f"{kind.capitalize()}Increasing": (kind, lambda level, sign: 1 + sign * 0.9 * level / MAX_LEVEL),
    }


def _move(kind: str, greatest: float) -> _Scale:
    return kind, lambda level, sign: sign * greatest * level / MAX_LEVEL


_SCALES: Mapping[str, _Scale] = {
    "AutoContrast": ("auto_contrast", lambda level, sign: 0.0),
    "Equalize": ("equalize", lambda level, sign: 0.0),
    "Invert": ("invert", lambda level, sign: 0.0),
    "Rotate": _move("rotate", 30.0),
    "ShearX": _move("shear_x", 0.3),
    "ShearY": _move("shear_y", 0.3),
    "TranslateX": _move("translate_x", 0.45),
    "TranslateY": _move("translate_y", 0.45),
    "Posterize": ("posterize", lambda level, sign: int(4 * level / MAX_LEVEL)),
    "PosterizeIncreasing": ("posterize", lambda level, sign: 4 - int(4 * level / MAX_LEVEL)),
    "PosterizeOriginal": ("posterize", lambda level, sign: 4 + int(4 * level / MAX_LEVEL)),
    "Solarize": ("solarize", lambda level, sign: int(256 * level / MAX_LEVEL)),
    "SolarizeIncreasing": ("solarize", lambda level, sign: 256 - int(256 * level / MAX_LEVEL)),
    **_enhance("color"),
    **_enhance("contrast"),
    **_enhance("brightness"),
    **_enhance("sharpness"),
}
_PLAIN = ("AutoContrast", "Equalize")
_MOVING = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
_GRADED = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
RAND = (*_PLAIN, "Invert", *_MOVING, *_GRADED)
RAND_INCREASING = (*_PLAIN, "Invert", *_MOVING, *(f"{name}Increasing" for name in _GRADED))
AUGMIX = (*_PLAIN, *_MOVING, *(f"{name}Increasing" for name in _GRADED))

# Table 9 of the AutoAugment paper: operation, probability, level; two operations per line.
_IMAGENET = """
Posterize    .4 8  Rotate       .6 9
Solarize     .6 5  AutoContrast .6 5
Equalize     .8 8  Equalize     .6 3
Posterize    .6 7  Posterize    .6 6
Equalize     .4 7  Solarize     .2 4
Equalize     .4 4  Rotate       .8 8
Solarize     .6 3  Equalize     .6 7
Posterize    .8 5  Equalize     1. 2
Rotate       .2 3  Solarize     .6 8
Equalize     .6 8  Posterize    .4 6
Rotate       .8 8  Color        .4 0
Rotate       .4 9  Equalize     .6 2
Equalize     .0 7  Equalize     .8 8
Invert       .6 4  Equalize     1. 8
Color        .6 4  Contrast     1. 8
Rotate       .8 8  Color        1. 2
Color        .8 8  Solarize     .8 7
Sharpness    .4 7  Invert       .6 8
ShearX       .6 5  Equalize     1. 9
Color        .4 0  Equalize     .6 3
Equalize     .4 7  Solarize     .2 4
Solarize     .6 5  AutoContrast .6 5
Invert       .6 4  Equalize     1. 8
Color        .6 4  Contrast     1. 8
Equalize     .8 8  Equalize     .6 3
"""


@dataclass(frozen=True)
class RandAugment:
    """`layers` operations, each applied with `probability`; level from N(level, deviation), clipped to 0..10."""

    names: tuple[str, ...]
    level: float
    deviation: float = 0.0
    layers: int = 2
    probability: float = 0.5
    width: ClassVar[int] = 0

    def draw(self, rng: np.random.Generator) -> tuple[Operation, ...]:
        names = [str(name) for name in rng.choice(self.names, self.layers) if rng.random() < self.probability]
        return tuple(_draw_operation(name, self.level, self.deviation, rng) for name in names)


@dataclass(frozen=True)
class AugMix:
    """`width` chains of `depth` operations (0: one to three, at random), with weights from Dirichlet(alpha)."""

    level: float
    deviation: float = UNIFORM
    width: int = 3
    depth: int = 0
    alpha: float = 1.0

    def draw(self, rng: np.random.Generator) -> tuple[Operation, ...]:
        names = rng.choice(AUGMIX, self.depth or int(rng.integers(1, 4)))
        return tuple(_draw_operation(str(name), self.level, self.deviation, rng) for name in names)


@dataclass(frozen=True)
class AutoAugment:
    """One of the paper's 25 sub-policies for ImageNet; `posterize` names the scale of Posterize."""

    posterize: str
    width: ClassVar[int] = 0

    def draw(self, rng: np.random.Generator) -> tuple[Operation, ...]:
        lines = _IMAGENET.strip().splitlines()
        fields = lines[int(rng.integers(len(lines)))].split()
        operations = []
        for name, probability, level in (fields[:3], fields[3:]):
            if rng.random() < float(probability):
                operations.append(
                    _draw_operation(self.posterize if name == "Posterize" else name, float(level), 0.0, rng)
                )
        return tuple(operations)


def _draw_operation(name: str, level: float, deviation: float, rng: np.random.Generator) -> Operation:
    if deviation >= UNIFORM:
        level = rng.uniform(0.0, level)
    elif deviation:
        level = min(max(rng.normal(level, deviation), 0.0), MAX_LEVEL)
    return operation(name, level, 1 if rng.random() < 0.5 else -1)


def operation(name: str, level: float, sign: int = 1) -> Operation:
    """`level` in 0..10; `sign` is +1 or -1, and only affects operations that have a direction."""
    kind, value = _SCALES[name]
    return Operation(kind, value(level, sign))


def parse(text: str) -> Policy:
    """A policy string -> Policy. Raises ValueError that shows the valid forms."""
    name, *parts = text.split("-")
    if name in ("original", "originalr") and not parts:
        return AutoAugment("PosterizeOriginal" if name == "original" else "PosterizeIncreasing")
    if name == "rand":
        options = _options(text, parts, whole=("m", "n", "inc"), fractions=("p", "mstd"))
        names = RAND_INCREASING if options.pop("inc", 0) else RAND
        return RandAugment(names, **_as_fields(options))
    if name == "augmix":
        return AugMix(**_as_fields(_options(text, parts, whole=("m", "w", "d"), fractions=("a", "mstd"))))
    raise ValueError(f"unknown policy {text!r}; valid: {VALID_FORMS}")


_FIELDS = {
    "m": "level",
    "mstd": "deviation",
    "n": "layers",
    "p": "probability",
    "w": "width",
    "d": "depth",
    "a": "alpha",
}
_LIMITS = {"m": (0, MAX_LEVEL), "n": (1, 10), "p": (0, 1), "inc": (0, 1), "w": (1, 10), "d": (1, 10), "a": (0.01, 100)}


def _as_fields(options: Mapping[str, float]) -> dict[str, Any]:
    return {_FIELDS[key]: value for key, value in options.items()}


def _options(text: str, parts: list[str], *, whole: tuple[str, ...], fractions: tuple[str, ...]) -> dict[str, float]:
    """`m9`, `mstd0.5`, ... -> int for the options in `whole`, float for those in `fractions`."""
    options: dict[str, float] = {}
    for part in parts:
        match = re.fullmatch(r"([a-z]+)(\d+|\d*\.\d+)", part)
        key, number = (match[1], match[2]) if match else ("", "")
        if key in options or key not in whole + fractions or (key in whole and "." in number):
            raise ValueError(f"policy {text!r}: {part!r} is not understood; valid: {VALID_FORMS}")
        options[key] = int(number) if key in whole else float(number)
        least, most = _LIMITS.get(key, (0, float("inf")))
        if not least <= options[key] <= most:
            raise ValueError(f"policy {text!r}: {key} must be in {least:g}..{most:g}; valid: {VALID_FORMS}")
    if "m" not in options:
        raise ValueError(f"policy {text!r}: the magnitude m is missing; valid: {VALID_FORMS}")
    return options
