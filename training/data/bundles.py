"""The bundle that a run starts from: its architecture and image settings, and where the recipe differs.

1. a key that neither recipe nor command line gives is taken from the bundle;
2. a key that they give is kept, and the difference is printed;
3. preprocessing of the bundle that a recipe cannot express is printed too;
4. a network that training cannot build is an error that names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from models.errors import BundleError
from models.manifest import Preprocess
from models.store import Bundle, open_bundle
from training.config import TrainConfig, build
from training.data.pipeline import evaluation_spec
from training.errors import CheckpointError, ConfigError
from weights.variants import VARIANTS


def find(pretrained: Path | None) -> Bundle | None:
    """The bundle named by `pretrained`, or None if it is empty or a checkpoint. Raises CheckpointError."""
    if pretrained is None or pretrained.suffix == ".ckpt" or pretrained.is_file():
        return None
    try:
        return open_bundle(pretrained)
    except BundleError as error:
        raise CheckpointError(f"pretrained: {error}; a checkpoint is a file, FILE.ckpt") from error


def follow(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """-> the configuration, completed from the bundle, and lines for the user.

    Without a bundle in `pretrained` it stays as it is. Raises TrainingError.
    """
    bundle = find(config.pretrained)
    if bundle is None:
        return config, []
    variant, given = bundle.manifest.network.variant, config.model_fields_set
    if variant not in VARIANTS:
        raise ConfigError(
            f"{bundle.folder} is a {variant}; only the RepVGG family can be trained: {', '.join(VARIANTS)}"
        )
    if "arch" in given and config.arch != variant:
        raise ConfigError(f"arch is {config.arch}, but {bundle.folder} is a {variant}: give --arch {variant}, or none")
    values = {"arch": variant} | _image_keys(bundle.manifest.preprocess)
    taken = {key: value for key, value in values.items() if key not in given}
    told = {key: getattr(config, key) for key in given}
    followed = build(told | taken, source=f"{bundle.folder}")
    lines = [f"from {bundle.folder}: " + ", ".join(f"{key} {_text(value)}" for key, value in taken.items())]
    return followed, lines + _differences(bundle.manifest.preprocess, evaluation_spec(followed))


def _image_keys(spec: Preprocess) -> dict[str, Any]:
    """The keys of a recipe that describe the bundle's preprocessing, as far as they can."""
    keys: dict[str, Any] = {"image_size": spec.input_size, "mean": spec.mean, "std": spec.std}
    keys["crop_pct"] = spec.crop_pct or spec.input_size / spec.resize_size
    if spec.interpolation in get_args(TrainConfig.model_fields["interpolation"].annotation):
        keys["interpolation"] = spec.interpolation
    return keys


def _differences(served: Preprocess, trained: Preprocess) -> list[str]:
    """A line for each way in which the run treats an image differently from the bundle."""
    same = {"resize_to"}
    if served.resize_size * trained.input_size == trained.resize_size * served.input_size:
        same.add("crop_pct")
    return [
        f"  {name} is {_text(getattr(trained, name))} here, the bundle used {_text(getattr(served, name))}"
        for name in Preprocess.model_fields
        if name not in same and getattr(trained, name) != getattr(served, name)
    ]


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
