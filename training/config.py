"""The configuration of a run: the YAML keys of a recipe, each of which is a command-line flag too.

1. an unknown key is an error that names the nearest known one;
2. types mean what people mean: `1e-4` is a number and `None` is nothing, although YAML reads both as text;
3. a flag wins over the recipe, the recipe over the default.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from training.errors import ConfigError
from training.variants import VARIANTS


def _none(value: Any) -> Any:
    return None if value in ("None", "none", "null", "") else value


def _three(value: Any) -> Any:
    return list(value.strip("[]() ").split(",")) if isinstance(value, str) else value


OptionalPath = Annotated[Path | None, BeforeValidator(_none)]
Channels = Annotated[tuple[float, float, float], BeforeValidator(_three)]
Count = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0.0)]


class TrainConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    # Architecture
    arch: str = Field("RepVGG-A0", description="a name of training.variants.VARIANTS")
    num_classes: Count = 1000
    pretrained: OptionalPath = Field(None, description="checkpoint to evaluate, to export or to start from")
    # Dataset
    data_url: Path = Field(Path("./dataset"), description="folder with train/<class>/* and val/<class>/*")
    dataset: str = Field("ImageNet", description="its name in logs and in the bundle's manifest")
    image_size: Count = Field(224, description="side of the network's square input, pixels")
    crop: Literal["random_resized", "padded"] = Field(
        "random_resized",
        description="training crop: a random part of the photo, or a shifted crop of a padded small image",
    )
    crop_padding: Annotated[int, Field(ge=0)] = Field(4, description="pixels of zero padding for crop: padded")
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    crop_pct: Annotated[float, Field(gt=0, le=1)] = Field(0.875, description="evaluation: share of the short side kept")
    mean: Channels = (0.485, 0.456, 0.406)
    std: Channels = (0.229, 0.224, 0.225)
    verify_images: Literal["headers", "pixels"] = Field(
        "pixels", description="how far each training image is read before the first epoch; headers is quick"
    )
    num_parallel_workers: Count = Field(2, description="threads that read and augment images")
    # Learning rate
    base_lr: Rate = 0.1
    warmup_lr: Rate = 0.00000007
    min_lr: Rate = 0.000006
    lr_scheduler: Literal["cosine_lr"] = "cosine_lr"
    warmup_length: Annotated[int, Field(ge=0)] = Field(0, description="epochs of linear warm-up")
    # Training
    optimizer: Literal["momentum", "nesterov"] = "momentum"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Rate = Field(0.0001, description="not applied to batch norms and biases")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    epochs: Count = 180
    batch_size: Count = Field(128, description="images a step and device")
    seed: Annotated[int, Field(ge=0)] = 1
    # Where it runs and what it leaves
    device_target: Literal["Ascend", "GPU", "CPU"] = "Ascend"
    device_id: Annotated[int, Field(ge=0)] = 0
    save_dir: Path = Field(Path("./runs"), description="checkpoints and logs go to <save_dir>/<arch>")
    resume: bool = Field(True, description="go on from the last checkpoint of this run, if there is one")

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.arch not in VARIANTS:
            nearest = difflib.get_close_matches(self.arch, VARIANTS, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown arch {self.arch!r}; did you mean {nearest!r}?")
        if self.warmup_length > self.epochs:
            raise ValueError(f"warmup_length ({self.warmup_length}) is longer than epochs ({self.epochs})")
        return self

    @property
    def run_dir(self) -> Path:
        return self.save_dir / self.arch


def parse(
    argv: Sequence[str] | None, *, prog: str, description: str, **extra: Any
) -> tuple[TrainConfig, Path | None, argparse.Namespace]:
    """Command line -> configuration, path of its recipe, and the flags of the verb itself.

    `extra` maps the verb's own flags to the keywords of `add_argument`. Raises ConfigError.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="recipe; every key of it is a flag too")
    for name, keywords in extra.items():
        parser.add_argument(f"--{name}", **keywords)
    keys = parser.add_argument_group("keys of the recipe")
    for name, field in TrainConfig.model_fields.items():
        default = "" if field.is_required() else f" [default: {field.default}]"
        text = (field.description or "") + default
        keys.add_argument(f"--{name}", default=None, metavar="VALUE", help=text.strip().replace("%", "%%"))
    flags = parser.parse_args(argv)
    recipe = read_yaml(flags.config) if flags.config else {}
    given = {name: getattr(flags, name) for name in TrainConfig.model_fields if getattr(flags, name) is not None}
    return build(recipe | given, source=str(flags.config or "the command line")), flags.config, flags


def read_yaml(path: Path) -> dict[str, Any]:
    """Raises ConfigError that names the file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines")
    return values


def build(values: Mapping[str, Any], *, source: str) -> TrainConfig:
    """Values -> configuration; raises ConfigError that names the key, the value and what is allowed."""
    known = list(TrainConfig.model_fields)
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"{source}: unknown key {key!r}; did you mean {nearest!r}?")
    try:
        return TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc'])) or 'configuration'}: {item['msg']} (got {item['input']!r})"
            if item["loc"]
            else item["msg"]
            for item in error.errors()
        ]
        raise ConfigError(f"{source}: " + "; ".join(problems)) from error
