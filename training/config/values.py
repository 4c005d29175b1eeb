"""The types of a recipe's values, with bounds, and how text from YAML and flags becomes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _parse_none(value: Any) -> Any:
    return None if value in ("None", "none", "null", "") else value


def parse_list(value: Any) -> Any:
    """`[0.9, 0.999]` or `0.9,0.999` from a flag -> its items."""
    if not isinstance(value, str):
        return value
    inner = value.strip("[]() ")
    return [item.strip(" '\"") for item in inner.split(",")] if inner else []


def parse_resume(value: Any) -> Any:
    """Yes and no are accepted because `resume` used to be a switch."""
    word = str(value).lower()
    if word in ("true", "yes", "on", "1"):
        return "auto"
    if word in ("false", "no", "off", "0", "null", ""):
        return "none"
    if word in ("auto", "none"):
        return word
    if not word.endswith(".ckpt"):
        raise ValueError("must be auto, none or FILE.ckpt")
    return value


def _parse_name(value: Any) -> Any:
    value = _parse_none(value)
    if isinstance(value, str) and (value in (".", "..") or {"/", "\\"} & {*value}):
        raise ValueError("must be the name of one folder, without / and \\")
    return value


def _path_to_str(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


OptionalPath = Annotated[Path | None, BeforeValidator(_parse_none)]
OptionalStr = Annotated[str | None, BeforeValidator(_parse_none)]
RunName = Annotated[str | None, BeforeValidator(_parse_name)]
FolderOrUrl = Annotated[str, BeforeValidator(_path_to_str)]  # a Path would turn obs://bucket into obs:/bucket
OptionalPositive = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_parse_none)]
Deviation = Annotated[float, Field(ge=1e-6, le=1)]
Count = Annotated[int, Field(gt=0)]
OptionalCount = Annotated[Count | None, BeforeValidator(_parse_none)]
Rate = Annotated[float, Field(ge=0.0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Factor = Annotated[float, Field(gt=0, le=1)]
