"""Chooses the artifact of a bundle that an engine loads.

Separate from `store`, and in Python 3.7 syntax, because an engine's own process may run an older interpreter with only
numpy and the engine's runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from models.manifest import Artifact


def choose(artifacts: Sequence[Artifact], formats: Sequence[str], precision: str, folder: Path) -> Artifact:
    """The artifact of `precision` whose format comes first in `formats`. Raises BundleError with a list."""
    have: dict[tuple[str, str], Artifact] = {(a.format, a.precision): a for a in artifacts}
    for wanted in formats:
        if (wanted, precision) in have:
            return have[wanted, precision]
    present = ", ".join(f"{f} {p}" for f, p in have)
    raise BundleError(f"{folder} has no {' or '.join(formats)} artifact of precision {precision}; it has: {present}")
