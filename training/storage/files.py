"""Reads and writes whole files, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

from training.errors import DataError, TrainingError


def write_whole(path: Path, content: bytes) -> None:
    """Create or replace a file, and create its folder; a reader sees either the old content or the new.

    Raises TrainingError that names the path; then no temporary file is left.
    """
    draft = path.with_name(f".{path.name}.draft")  # always the same name, so that a draft left by a kill is overwritten
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(content)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror or error}") from error


def read_whole(path: Path) -> bytes:
    """Raises DataError that names the path."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
