"""Files that are read and written whole, with errors that name them."""

from __future__ import annotations

from pathlib import Path

from training.errors import DataError, TrainingError


def write_whole(path: Path, content: bytes) -> None:
    """Make or replace a file, and its folder; whoever reads sees the old content or the new.

    Raises TrainingError that names the path; then nothing is left of the attempt.
    """
    draft = path.with_name(f".{path.name}.draft")  # one name, so that what a kill left is written over
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
