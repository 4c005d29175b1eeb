"""Which of a bundle's artifacts an engine gets.

Apart from `store`, and in the syntax of Python 3.7, because an engine's own process may run an older interpreter that
has numpy and the engine's runtime and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from models.manifest import Artifact


def choose(artifacts: Sequence[Artifact], formats: Sequence[str], precision: str, folder: Path) -> Artifact:
    """The artifact of `precision` whose format comes first in `formats`; BundleError lists what there is."""
    have: dict[tuple[str, str], Artifact] = {(a.format, a.precision): a for a in artifacts}
    for wanted in formats:
        if (wanted, precision) in have:
            return have[wanted, precision]
    present = ", ".join(f"{f} {p}" for f, p in have)
    raise BundleError(f"{folder} has no {' or '.join(formats)} artifact of precision {precision}; it has: {present}")
