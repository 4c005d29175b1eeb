"""Manifests with one thing wrong, and what is said of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from models.errors import BundleError
from models.manifest import Manifest

Values = dict[str, Any]


def spoil(values: Values, key: str, value: object) -> str:
    """The manifest with the value at the dotted `key` replaced, as JSON."""
    *parents, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    place: Any = values
    for parent in parents:
        place = place[parent]
    place[last] = value
    return json.dumps(values)


def refusal(text: str | bytes) -> str:
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(text)
    return str(caught.value)
