"""Command line and recipe -> the configuration of a run.

1. an unknown key, or an unknown value of a choice, is an error that suggests the nearest known one;
2. `1e-4` is a number and `None` is no value, although YAML reads both as text;
3. a flag overrides the recipe, and the recipe overrides the default;
4. `--print-config` shows every value with its source; its output is a recipe with the same configuration.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import ValidationError

from training.config.keys import ARCH_ALIASES, TrainConfig, nearest
from training.errors import ConfigError, Parser

__all__ = ["TrainConfig", "build", "effective", "parse", "read_yaml"]


def parse(
    argv: Sequence[str] | None, *, prog: str, description: str, **extra: Any
) -> tuple[TrainConfig, Path | None, argparse.Namespace]:
    """Command line -> configuration, path of the recipe, and the flags of the verb itself.

    `extra` maps the verb's own flags to the keyword arguments of `add_argument`. Raises ConfigError; exits with status
    0 after `--print-config` and with 2 for an unknown flag.
    """
    parser = _parser(prog, description, extra)
    flags, unknown = parser.parse_known_args(argv)
    if unknown:
        flag = unknown[0].partition("=")[0]
        suggestion = nearest(flag.lstrip("-"), ["config", "print-config", *extra, *TrainConfig.model_fields])
        parser.exit(2, f"error: unknown flag {flag}; did you mean --{suggestion}? See --help for all flags\n")
    recipe = read_yaml(flags.config) if flags.config else {}
    given = {name: getattr(flags, name) for name in TrainConfig.model_fields if getattr(flags, name) is not None}
    stem = {"name": flags.config.stem} if flags.config else {}
    config = build(stem | recipe | given, source=str(flags.config or "the command line"))
    if flags.print_config:
        print(effective(config, recipe=recipe, flags=given), end="")
        parser.exit()
    if (alias := (recipe | given).get("arch")) in ARCH_ALIASES:
        print(f"arch {alias} is another name for {config.arch}")
    return config, flags.config, flags


def _parser(prog: str, description: str, extra: Mapping[str, Any]) -> argparse.ArgumentParser:
    parser = Parser(prog=prog, description=description, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="recipe; each of its keys is also a flag")
    parser.add_argument("--print-config", action="store_true", help="show every value with its source, and exit")
    for name, keywords in extra.items():
        parser.add_argument(f"--{name}", **keywords)
    keys = parser.add_argument_group("keys of the recipe")
    for name in TrainConfig.model_fields:
        keys.add_argument(f"--{name}", default=None, metavar="VALUE", help=_help(name))
    return parser


def effective(config: TrainConfig, *, recipe: Mapping[str, Any], flags: Mapping[str, Any]) -> str:
    """Every key as a line of YAML, with the source of its value: flag, recipe or default."""
    lines = []
    for key, value in config.model_dump(mode="json").items():
        flow_style = None if isinstance(value, list) else False  # a list on one line
        line = yaml.safe_dump({key: value}, default_flow_style=flow_style, width=1000).strip()
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
        raise ConfigError(f"{path} must consist of `key: value` lines")
    return values


def build(values: Mapping[str, Any], *, source: str) -> TrainConfig:
    """Values -> configuration. Raises ConfigError that names the key, the value and the allowed values."""
    known = list(TrainConfig.model_fields)
    for key in values:
        if key not in known:
            raise ConfigError(f"{source}: unknown key {key!r}; did you mean {nearest(key, known)!r}?")
    try:
        return TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_problem(item) for item in error.errors())) from error


def _problem(item: Any) -> str:
    """One of pydantic's validation errors as a message of ours."""
    if not item["loc"]:
        return str(item["msg"])
    place, value = ".".join(map(str, item["loc"])), item["input"]
    if choices := _choices(str(item["loc"][0])):
        return f"{place}: unknown value {value!r}; did you mean {nearest(value, choices)!r}? ({', '.join(choices)})"
    return f"{place}: {item['msg']} (got {value!r})"


def _choices(key: str) -> list[str]:
    """The allowed values of a key that is a choice; empty for any other key."""
    annotation = TrainConfig.model_fields[key].annotation
    return list(get_args(annotation)) if get_origin(annotation) is Literal else []


def _help(key: str) -> str:
    field, choices = TrainConfig.model_fields[key], _choices(key)
    parts = [", ".join(choices), field.description or "", f"[default: {field.default}]"]
    return " ".join(part for part in parts if part).replace("%", "%%")
