"""timm's config.json: the network, its preprocessing and its labels.

1. whatever a bundle cannot express about the network or the preprocessing is refused by its key;
2. sizes are those that timm tests with: `test_input_size` and `test_crop_pct` if they are given;
3. labels are the config's; the list of ImageNet-1k only if the config names that data set; otherwise `class 0` and so
   on.

Keys and defaults: timm's data/config.py and models/_hub.py; the transform: data/transforms_factory.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from hub.errors import Unusable
from models.manifest import Preprocess, problems
from weights.labels import IMAGENET_LABELS, read_labels
from weights.variants import VARIANTS

Config = Mapping[str, Any]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# timm's name -> ours, of the variants that timm builds: byobnet.py.
ARCHITECTURES = {
    f"repvgg_{name.lower()}": f"RepVGG-{name}"
    for name in ("A0", "A1", "A2", "B0", "B1", "B1g4", "B2", "B2g4", "B3", "B3g4", "D2se")
}
# timm 1.0 writes these arguments even if they change nothing.
AS_ALWAYS = {"in_chans": 3, "global_pool": "avg"}
assert set(ARCHITECTURES.values()) <= VARIANTS.keys()


def is_timm(config: Config) -> bool:
    return isinstance(config.get("architecture"), str) and "pretrained_cfg" in config


def architecture(config: Config) -> str:
    """Our name of the variant. Raises Unusable for any other network, and for a changed one."""
    name = config["architecture"]
    if name not in ARCHITECTURES:
        nearest = difflib.get_close_matches(name, ARCHITECTURES, n=1, cutoff=0.0)[0]
        raise Unusable(f"architecture {name!r} is not one of timm's RepVGGs; the nearest is {nearest!r}")
    changed = config.get("model_args") or {}
    if unknown := [key for key, value in changed.items() if key != "num_classes" and value != AS_ALWAYS.get(key)]:
        raise Unusable(f"model_args changes the network by {', '.join(unknown)}, which is not supported")
    if config.get("global_pool", "avg") != "avg":
        raise Unusable(f"global_pool {config['global_pool']!r} is not supported, only 'avg'")
    return ARCHITECTURES[name]


def num_classes(config: Config) -> int:
    classes = config.get("num_classes", _recipe(config).get("num_classes"))
    if not isinstance(classes, int) or classes < 1:
        raise Unusable(f"num_classes is {classes!r}: the network has no classifier, so there is nothing to serve")
    return classes


def preprocessing(config: Config) -> Preprocess:
    """Raises Unusable that names the key."""
    recipe = _recipe(config)
    mode = recipe.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise Unusable(f"crop_mode {mode!r} is not supported, only 'center' and 'squash'")
    size = recipe.get("test_input_size") or recipe.get("input_size") or (3, 224, 224)
    if not _is_square_rgb(size):
        raise Unusable(f"input_size {size!r} is not supported, only [3, S, S]")
    spec = {
        "input_size": size[1],
        "resize": "squash" if mode == "squash" else "shortest_side",
        "interpolation": recipe.get("interpolation") or "bicubic",
        "crop_pct": recipe.get("test_crop_pct") or recipe.get("crop_pct") or 0.875,
        "crop_offset_rounding": "round",  # torchvision's CenterCrop
        "mean": tuple(recipe.get("mean") or IMAGENET_MEAN),
        "std": tuple(recipe.get("std") or IMAGENET_STD),
    }
    return build(spec)


def build(spec: Mapping[str, Any]) -> Preprocess:
    """Raises Unusable that names the key."""
    try:
        return Preprocess.model_validate(dict(spec), strict=False)
    except ValidationError as error:
        raise Unusable(f"the preprocessing is not supported: {problems(error)}") from None


def labels(config: Config, classes: int) -> tuple[list[str], str]:
    """-> a label for each class, and where they are from. Raises Unusable if the config's labels do not fit."""
    given = config.get("label_names", config.get("labels"))
    if given:
        return _named(given, config.get("label_descriptions") or {}, classes), "the config's own"
    if classes == 1000 and _is_imagenet(config):
        return read_labels(IMAGENET_LABELS), "those of ImageNet-1k, which the config names as its data set"
    return [f"class {number}" for number in range(classes)], "numbers, since the config names no classes"


def _named(given: Any, descriptions: Mapping[str, str], classes: int) -> list[str]:
    try:
        pairs = ((int(key), name) for key, name in given.items()) if isinstance(given, Mapping) else enumerate(given)
        names = dict(pairs)
    except ValueError as error:
        raise Unusable(f"label_names has a key that is not a class number: {error}") from None
    if sorted(names) != list(range(classes)):
        raise Unusable(
            f"label_names has {len(names)} labels, up to number {max(names)}; the network has {classes} classes"
        )
    # The description says what a WordNet number means.
    return [one_line(str(descriptions.get(names[number], names[number]))) for number in range(classes)]


def one_line(label: str) -> str:
    """A label takes one line of a bundle's file."""
    return " ".join(label.split()) or "unnamed"


def _is_imagenet(config: Config) -> bool:
    return str(_recipe(config).get("tag", "")).endswith("in1k")


def _recipe(config: Config) -> Config:
    recipe = config.get("pretrained_cfg")
    return recipe if isinstance(recipe, Mapping) else config


def _is_square_rgb(size: Any) -> bool:
    return isinstance(size, Sequence) and len(size) == 3 and size[0] == 3 and size[1] == size[2]
