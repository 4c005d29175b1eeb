"""More forms of a bundle's network, for its new version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.manifest import Artifact


@dataclass(frozen=True)
class Addition:
    """`files`: name -> content; `tolerance`: of the golden check, by precision; `changes`: of manifest keys."""

    artifacts: Sequence[Artifact]
    files: dict[str, bytes | Path]
    tolerance: dict[str, float] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
