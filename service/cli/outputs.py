"""Checks of the files that a verb will write, made before its work begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models import charts
from service.errors import UsageError


def check_folder(flag: str, path: Path | None) -> None:
    """Raises UsageError if the file's folder does not exist."""
    if path and not path.parent.is_dir():
        raise UsageError(f"{flag}: there is no folder {path.parent}")


def check_chart(flag: str, path: Path | None, suffixes: Sequence[str]) -> None:
    """Raises UsageError if a chart cannot be drawn here, or not into this file."""
    if path and path.suffix not in suffixes:
        raise UsageError(f"{flag} {path}: the name must end in {' or '.join(suffixes)}")
    check_folder(flag, path)
    if path and not charts.is_installed():
        raise UsageError(charts.NOT_INSTALLED)
