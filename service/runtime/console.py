"""The surroundings of a command: its environment and streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True)
class Console:
    """The environment, and the two streams: `out` for results, `err` for everything else."""

    environ: Mapping[str, str]
    out: TextIO
    err: TextIO
