"""AutoAugment, RandAugment and AugMix policies, as timm writes them -> operations with their magnitudes.

1. a string that is not understood is an error that names what is;
2. a magnitude of 0 changes nothing where `inc1` is written, and a greater one changes more;
3. all of it is data: what draws the choices at random is MindData.

AutoAugment: Cubuk et al., CVPR 2019, arXiv:1805.09501 (ranges of table 6, ImageNet policy of table 9). RandAugment:
Cubuk et al., 2020, arXiv:1909.13719. AugMix: Hendrycks et al., ICLR 2020, arXiv:1912.02781. The meaning of the
strings and of a level for each operation is timm's; its SolarizeAdd, which no paper has, is left out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

MAX_LEVEL = 10.0
# A random magnitude is one of this many equally likely ones, since MindData chooses among operations made before.
LEVELS = 9
UNDERSTOOD = (
    "rand-m<0..10>[-n<layers>][-p<probability>][-mstd<deviation>][-inc<0|1>], original, originalr, "
    "augmix-m<0..10>[-w<chains>][-d<depth>][-a<alpha>][-mstd<deviation>]; e.g. rand-m9-mstd0.5-inc1, augmix-m5-w4-d2"
)


@dataclass(frozen=True)
class Operation:
    """`value` is the rotation in degrees, the shear as a slope, the shift as a share of the side, the factor of an
    enhancement (1 keeps the image), the bits kept, the least value to invert (256: none); 0 where there is no choice.
    """

    kind: str
    value: float = 0.0


SubPolicy = tuple[tuple[Operation, float], ...]  # operations one after the other, each with its probability


@dataclass(frozen=True)
class Policy:
    """`depth` times (0: once, twice or three times), one of the equally likely `choices` is applied.

    With `width` > 0 so many chains start from the image, and AugMix mixes them with it: weights from
    Dirichlet(alpha), share of the mixture from Beta(alpha, alpha). `alpha` has no meaning otherwise.
    """

    choices: tuple[SubPolicy, ...]
    depth: int = 1
    width: int = 0
    alpha: float = 1.0


@dataclass(frozen=True)
class _Scale:
    """Level 0..10 -> value; `signed` scales take a sign of +1 or -1."""

    kind: str
    value: Callable[[float, int], float] = lambda level, sign: 0.0
    signed: bool = False


def _enhance(kind: str) -> dict[str, _Scale]:
    return {
        kind.capitalize(): _Scale(kind, lambda level, _: 0.1 + 1.8 * level / MAX_LEVEL),
        f"{kind.capitalize()}Increasing": _Scale(kind, lambda level, sign: 1 + sign * 0.9 * level / MAX_LEVEL, True),
    }


def _geometric(kind: str, greatest: float) -> _Scale:
    return _Scale(kind, lambda level, sign: sign * greatest * level / MAX_LEVEL, True)


_SCALES: Mapping[str, _Scale] = {
    "AutoContrast": _Scale("auto_contrast"),
    "Equalize": _Scale("equalize"),
    "Invert": _Scale("invert"),
    "Rotate": _geometric("rotate", 30.0),
    "ShearX": _geometric("shear_x", 0.3),
    "ShearY": _geometric("shear_y", 0.3),
    "TranslateX": _geometric("translate_x", 0.45),
    "TranslateY": _geometric("translate_y", 0.45),
    "Posterize": _Scale("posterize", lambda level, _: int(4 * level / MAX_LEVEL)),
    "PosterizeIncreasing": _Scale("posterize", lambda level, _: 4 - int(4 * level / MAX_LEVEL)),
    "PosterizeOriginal": _Scale("posterize", lambda level, _: 4 + int(4 * level / MAX_LEVEL)),
    "Solarize": _Scale("solarize", lambda level, _: int(256 * level / MAX_LEVEL)),
    "SolarizeIncreasing": _Scale("solarize", lambda level, _: 256 - int(256 * level / MAX_LEVEL)),
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

# Table 9 of the AutoAugment paper: operation, probability, level; twice a line.
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


def parse(text: str) -> Policy:
    """A policy string -> Policy. Raises ValueError that names what is understood."""
    name, *parts = text.split("-")
    if name in ("original", "originalr") and not parts:
        return _autoaugment("PosterizeOriginal" if name == "original" else "PosterizeIncreasing")
    if name == "rand":
        return _randaugment(_options(text, parts, {"m": 1, "n": 1, "p": 0, "mstd": 0, "inc": 1}))
    if name == "augmix":
        return _augmix(_options(text, parts, {"m": 1, "w": 1, "d": 1, "a": 0, "mstd": 0}))
    raise ValueError(f"unknown policy {text!r}; understood: {UNDERSTOOD}")


def operation(name: str, level: float, sign: int = 1) -> Operation:
    scale = _SCALES[name]
    return Operation(scale.kind, scale.value(level, sign))


def _options(text: str, parts: list[str], whole: Mapping[str, int]) -> dict[str, float]:
    """`m9`, `mstd0.5`, ... -> numbers; `whole` names the options, and marks those that are whole numbers by 1."""
    options: dict[str, float] = {}
    for part in parts:
        match = re.fullmatch(r"([a-z]+)(\d+|\d*\.\d+)", part)
        if not match or match[1] not in whole or match[1] in options or (whole[match[1]] and "." in match[2]):
            raise ValueError(f"policy {text!r}: {part!r} is not understood; understood: {UNDERSTOOD}")
        options[match[1]] = float(match[2])
    limits = {
        "m": (0, MAX_LEVEL),
        "n": (1, 10),
        "p": (0, 1),
        "inc": (0, 1),
        "w": (1, 10),
        "d": (1, 10),
        "a": (0.01, 100),
    }
    for key, (least, most) in limits.items():
        if not least <= options.get(key, least) <= most:
            raise ValueError(f"policy {text!r}: {key} must be within {least:g}..{most:g}; understood: {UNDERSTOOD}")
    if "m" not in options:
        raise ValueError(f"policy {text!r}: the magnitude m is missing; understood: {UNDERSTOOD}")
    return options


def _randaugment(options: Mapping[str, float]) -> Policy:
    """`n` (2) operations, each done with probability `p` (0.5)."""
    names = RAND_INCREASING if options.get("inc") else RAND
    levels = _levels(options["m"], options.get("mstd", 0.0))
    return Policy(_each_alike(names, levels, options.get("p", 0.5)), depth=int(options.get("n", 2)))


def _augmix(options: Mapping[str, float]) -> Policy:
    """`w` (3) chains of `d` operations (1, 2 or 3 at random); the magnitude is uniform in 0..m without mstd."""
    levels = _levels(options["m"], options.get("mstd", 100.0))
    choices = _each_alike(AUGMIX, levels, 1.0)
    return Policy(choices, int(options.get("d", 0)), int(options.get("w", 3)), options.get("a", 1.0))


def _levels(mean: float, deviation: float) -> list[float]:
    """The middles of LEVELS equal shares of N(mean, deviation) cut to 0..10; of 0..mean, all alike, from 100 on."""
    shares = [(index + 0.5) / LEVELS for index in range(LEVELS)]
    if deviation == 0:
        return [mean]
    if deviation >= 100:
        return [share * mean for share in shares]
    normal = NormalDist(mean, deviation)
    return [min(max(normal.inv_cdf(share), 0.0), MAX_LEVEL) for share in shares]


def _each_alike(names: Iterable[str], levels: list[float], probability: float) -> tuple[SubPolicy, ...]:
    """One sub-policy for each name, level and sign, so that each name is equally likely."""
    return tuple(
        ((operation(name, level, sign), probability),) for name in names for level in levels for sign in (1, -1)
    )


def _autoaugment(posterize: str) -> Policy:
    lines = [line.split() for line in _IMAGENET.strip().splitlines()]
    choices = []
    for line, signs in itertools.product(lines, itertools.product((1, -1), repeat=2)):
        pairs = zip((line[:3], line[3:]), signs, strict=True)
        choices.append(
            tuple(
                (operation(posterize if name == "Posterize" else name, float(level), sign), float(probability))
                for (name, probability, level), sign in pairs
            )
        )
    return Policy(tuple(choices))
