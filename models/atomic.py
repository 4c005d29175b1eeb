"""Folders that appear complete or not at all. Standard library only, for offline inference on bare machines."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """A temporary folder next to `folder`: renamed to `folder` when the block succeeds, deleted when it fails.

    Its name begins with a dot, and only its owner may enter it. Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield draft
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
