"""The building blocks of a bundle's JSON: strict, frozen objects, and the types of their values."""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer


def inside(name: str) -> str:
    """The name itself if it can only mean a file inside the bundle's folder; otherwise ValueError."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or path == PurePosixPath(".")
    if outside or "\\" in name or not name.isprintable():
        raise ValueError(f"{name!r} is not a file inside the bundle: write a relative path without '..'")
    return name


def _moment(text: str) -> str:
    try:
        # Python 3.10 cannot parse "Z".
        offset = datetime.fromisoformat(text.replace("Z", "+00:00")).utcoffset()
    except ValueError:
        offset = None
    if offset is None:
        raise ValueError(f"{text!r} is not a time with a UTC offset: write it like 2025-01-31T12:00:00Z")
    return text


FileName = Annotated[str, AfterValidator(inside)]
Moment = Annotated[str, AfterValidator(_moment)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
# What logits are divided by before the softmax; 1: as the network was trained.
COLDEST, HOTTEST = 0.01, 100.0
Temperature = Annotated[float, Field(ge=COLDEST, le=HOTTEST)]
# Names become folder names, URL segments and metric labels.
Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class Strict(BaseModel):
    """Every JSON object of a bundle: no unknown key, no converted type, no NaN or Infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Grown(Strict):
    """`LATER`: keys added later. They are written only if they differ from their default, so that older releases can
    read bundles that do not need them."""

    LATER: ClassVar[frozenset[str]]

    @model_serializer(mode="wrap")
    def _without_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        defaults = {key: type(self).model_fields[key].default for key in self.LATER}
        return {key: value for key, value in written.items() if key not in defaults or value != defaults[key]}
