"""Command line and recipe -> the configuration of a run.

1. an unknown key is an error that names the nearest known one, and so is an unknown value of a choice;
2. types mean what people mean: `1e-4` is a number and `None` is nothing, although YAML reads both as text;
3. a flag wins over the recipe, the recipe over the default;
4. `--print-config` shows every value with its source, as a recipe that gives the same configuration.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import ValidationError

from training.config.keys import ARCH_ALIASES, TrainConfig, nearest
from training.errors import ConfigError

__all__ = ["TrainConfig", "build", "effective", "parse", "read_yaml"]


def parse(
    argv: Sequence[str] | None, *, prog: str, description: str, **extra: Any
) -> tuple[TrainConfig, Path | None, argparse.Namespace]:
    """Command line -> configuration, path of its recipe, and the flags of the verb itself.

    `extra` maps the verb's own flags to the keywords of `add_argument`. Raises ConfigError; leaves with status 0
    after `--print-config`.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="recipe; every key of it is a flag too")
    parser.add_argument("--print-config", action="store_true", help="show every value with its source, and leave")
    for name, keywords in extra.items():
        parser.add_argument(f"--{name}", **keywords)
    keys = parser.add_argument_group("keys of the recipe")
    for name in TrainConfig.model_fields:
        keys.add_argument(f"--{name}", default=None, metavar="VALUE", help=_help(name))
    flags, unknown = parser.parse_known_args(argv)
    if unknown:
        flag = unknown[0].partition("=")[0]
        likely = nearest(flag.lstrip("-"), ["config", "print-config", *extra, *TrainConfig.model_fields])
        parser.exit(2, f"error: there is no {flag}; did you mean --{likely}? --help lists what there is\n")
    recipe = read_yaml(flags.config) if flags.config else {}
    given = {name: getattr(flags, name) for name in TrainConfig.model_fields if getattr(flags, name) is not None}
    config = build(recipe | given, source=str(flags.config or "the command line"))
    if flags.print_config:
        print(effective(config, recipe=recipe, flags=given), end="")
        parser.exit()
    if (alias := (recipe | given).get("arch")) in ARCH_ALIASES:
        print(f"arch {alias} is another name of {config.arch}")
    return config, flags.config, flags


def effective(config: TrainConfig, *, recipe: Mapping[str, Any], flags: Mapping[str, Any]) -> str:
    """Every key as a line of YAML, with where its value is from: flag, recipe or default."""
    lines = []
    for key, value in config.model_dump(mode="json").items():
        in_one_line = None if isinstance(value, list) else False
        line = yaml.safe_dump({key: value}, default_flow_style=in_one_line, width=1000).strip()
        source = "flag" if key in flags else "recipe" if key in recipe else "default"
        lines.append(f"{line:<60} # {source}\n")
    return "".join(lines)


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
            raise ConfigError(f"{source}: unknown key {key!r}; did you mean {nearest(key, known)!r}?")
    try:
        return TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_problem(item) for item in error.errors())) from error


def _problem(item: Any) -> str:
    """One of pydantic's findings in our words."""
    if not item["loc"]:
        return str(item["msg"])
    place, found = ".".join(map(str, item["loc"])), item["input"]
    if choices := _choices(str(item["loc"][0])):
        return f"{place}: unknown value {found!r}; did you mean {nearest(found, choices)!r}? ({', '.join(choices)})"
    return f"{place}: {item['msg']} (got {found!r})"


def _choices(key: str) -> list[str]:
    """The values of a choice key; none for another key."""
    annotation = TrainConfig.model_fields[key].annotation
    return list(get_args(annotation)) if get_origin(annotation) is Literal else []


def _help(key: str) -> str:
    field, choices = TrainConfig.model_fields[key], _choices(key)
    parts = [", ".join(choices), field.description or "", f"[default: {field.default}]"]
    return " ".join(part for part in parts if part).replace("%", "%%")
