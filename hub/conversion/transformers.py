"""preprocessor_config.json and config.json of a transformers image classifier.

1. a missing key has the default of its image processor, since these differ;
2. what a bundle cannot express is refused by its key.

Defaults and arithmetic: transformers' models/*/image_processing_*.py; its `center_crop` floors the offset.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hub.conversion import timm
from hub.conversion.timm import IMAGENET_MEAN, IMAGENET_STD, build, one_line
from hub.errors import Unusable
from models.manifest import Preprocess

Config = Mapping[str, Any]

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Pillow's numbers.
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


@dataclass(frozen=True)
class Family:
    """Defaults of an image processor. `square`: what a bare number or no key means for `size`: both sides, or the short
    one. `crop`: the side that it crops by default, None if it does not."""

    size: int
    square: bool
    resample: int = 3
    crop: int | None = None
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    normalize: bool = True
    crop_pct: float | None = None


FAMILIES = {
    "ViT": Family(224, square=True, resample=2),
    "DeiT": Family(256, square=True, crop=224),
    "Beit": Family(256, square=True, crop=224),
    "ConvNext": Family(384, square=False, resample=2, crop_pct=224 / 256),
    "Bit": Family(224, square=False, crop=224, mean=CLIP_MEAN, std=CLIP_STD),
    "ViTHybrid": Family(224, square=False, crop=224, mean=CLIP_MEAN, std=CLIP_STD),
    "CLIP": Family(224, square=False, crop=224, mean=CLIP_MEAN, std=CLIP_STD),
    "MobileNetV1": Family(256, square=False, resample=2, crop=224),
    "MobileNetV2": Family(256, square=False, resample=2, crop=224),
    "MobileViT": Family(224, square=False, resample=2, crop=256, normalize=False),
    "EfficientNet": Family(346, square=True, resample=0),
    "Levit": Family(224, square=False, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "PoolFormer": Family(224, square=False, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop_pct=0.9),
    "Pvt": Family(224, square=True, resample=2, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "Segformer": Family(512, square=True, resample=2, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "Siglip": Family(224, square=True),
}
_SUFFIX = re.compile(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$")


def preprocessing(config: Config) -> Preprocess:
    """preprocessor_config.json -> Preprocess. Raises Unusable that names the key."""
    name = config.get("image_processor_type") or config.get("feature_extractor_type")
    if name == "TimmWrapperImageProcessor" or "pretrained_cfg" in config:
        return timm.preprocessing(config)
    kind = _SUFFIX.sub("", str(name))
    if kind not in FAMILIES:
        known = [f"{family}ImageProcessor" for family in FAMILIES]
        nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
        raise Unusable(f"image_processor_type {name!r} is not known; the nearest is {nearest}")
    family = FAMILIES[kind]
    for key, usual in (("do_resize", True), ("do_flip_channel_order", kind == "MobileViT"), ("do_pad", False)):
        if config.get(key, usual) != (key == "do_resize"):
            raise Unusable(f"{key} {config.get(key, usual)} is not supported")
    return build(_geometry(kind, family, config) | _values(kind, family, config) | {"crop_offset_rounding": "floor"})


def _geometry(kind: str, family: Family, config: Config) -> dict[str, Any]:
    resample = config.get("resample", family.resample)
    if not isinstance(resample, int) or not 0 <= resample < len(_FILTERS):
        raise Unusable(f"resample {resample!r} is not one of Pillow's filters, 0 to 5")
    square, size = _size(config.get("size"), family)
    crop = _crop(config, family, size)
    if kind == "ConvNext":  # from 384 pixels on it resizes both sides and crops nothing
        square, crop = size >= 384, size
        size = size if square else int(size / config.get("crop_pct", family.crop_pct))
    elif kind == "PoolFormer" and config.get("crop_pct", family.crop_pct):
        size = int(size / config.get("crop_pct", family.crop_pct))
    elif kind == "Levit" and not square:
        size = int((256 / 224) * size)
    if crop > size:
        raise Unusable(f"crop_size {crop} is more than size {size}: padding is not supported")
    resize = "squash" if square else "shortest_side"
    return {"input_size": crop, "resize": resize, "resize_to": size, "interpolation": _FILTERS[resample]}


def _size(given: Any, family: Family) -> tuple[bool, int]:
    """-> whether both sides are given, and the pixels."""
    if given is None or isinstance(given, int):
        return family.square, family.size if given is None else given
    if isinstance(given, Sequence) and len(given) == 2 and given[0] == given[1] and isinstance(given[0], int):
        return True, given[0]
    if isinstance(given, Mapping):
        if given.keys() == {"shortest_edge"} and isinstance(given["shortest_edge"], int):
            return False, given["shortest_edge"]
        if given.keys() == {"height", "width"} and given["height"] == given["width"]:
            return True, given["height"]
    raise Unusable(f"size {given!r} is not supported: a number, shortest_edge, or height and width of a square")


def _crop(config: Config, family: Family, size: int) -> int:
    if not config.get("do_center_crop", family.crop is not None):
        return size
    _, side = _size(config.get("crop_size", family.crop or size), family)
    return side


def _values(kind: str, family: Family, config: Config) -> dict[str, Any]:
    """Mean and deviation in 0..1 that do what rescaling and normalising do: `(pixel * factor - mean) / std`."""
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", family.normalize):
        mean = _three(config.get("image_mean") or family.mean, "image_mean")
        std = _three(config.get("image_std") or family.std, "image_std")
    if kind == "EfficientNet":
        if config.get("rescale_offset", False):  # to -1..1
            mean = _three([value + 1 for value in mean], "image_mean")
        if config.get("include_top", True):  # it divides by the deviation a second time
            again = _three(config.get("image_std") or family.std, "image_std")
            std = _three([one * other for one, other in zip(std, again, strict=True)], "image_std")
    if not isinstance(factor, int | float) or factor <= 0:
        raise Unusable(f"rescale_factor {factor!r} is not a positive number")
    unit = 255 * factor
    return {"mean": tuple(value / unit for value in mean), "std": tuple(value / unit for value in std)}


def _three(values: Any, key: str) -> tuple[float, float, float]:
    values = [values] if isinstance(values, int | float) else values
    values = list(values) * 3 if len(values) == 1 else list(values)
    if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
        raise Unusable(f"{key} {values!r} is not one number for each of three channels")
    return values[0], values[1], values[2]


def check_is_classifier(config: Config) -> None:
    """Raises Unusable for a model of another task."""
    named = config.get("architectures") or []
    if named and not any(
        name.endswith(("ForImageClassification", "ForImageClassificationWithTeacher")) for name in named
    ):
        raise Unusable(
            f"architectures {', '.join(named)}: not an image classifier (one ends in ForImageClassification)"
        )
    if config.get("problem_type") not in (None, "single_label_classification"):
        raise Unusable(f"problem_type {config['problem_type']!r} is not supported, only single_label_classification")


def labels(config: Config) -> tuple[list[str], str]:
    """config.json -> a label for each class, and where they are from."""
    if timm.is_timm(config):
        return timm.labels(config, timm.num_classes(config))
    given = config.get("id2label")
    if not isinstance(given, Mapping) or not given:
        raise Unusable("config.json has no id2label, so nobody knows how many classes there are and which")
    try:
        names = {int(key): str(label) for key, label in given.items()}
    except ValueError as error:
        raise Unusable(f"id2label has a key that is not a class number: {error}") from None
    if sorted(names) != list(range(len(names))):
        raise Unusable(f"id2label names {len(names)} classes, but up to number {max(names)}")
    if all(re.fullmatch(r"LABEL_\d+", label) for label in names.values()):
        return [f"class {number}" for number in range(len(names))], "numbers, since id2label has placeholders only"
    return [one_line(names[number]) for number in range(len(names))], "id2label of config.json"
