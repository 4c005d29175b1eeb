"""Folders that appear whole or not at all. Standard library only: offline inference uses it on bare machines."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` that becomes it when the block ends without an error, and else vanishes.

    Its name begins with a dot, and only its owner may enter. Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield draft
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
