"""Checks that a new bundle or checkpoint can be written, before the work for it begins."""

from __future__ import annotations

from pathlib import Path

from models.errors import BundleError
from models.store import name_and_version
from training.errors import ConfigError


def check_new(folder: Path) -> tuple[str, str]:
    """The name and version of the new bundle `folder`. Raises ConfigError if it exists or is not NAME/VERSION."""
    if folder.exists():
        raise ConfigError(f"{folder} exists: a published bundle is never changed; use the next version")
    try:
        return name_and_version(folder)
    except BundleError as error:
        raise ConfigError(str(error)) from error


def check_new_checkpoint(file: Path) -> None:
    """Raises ConfigError if `file` exists or does not end in .ckpt."""
    if file.suffix != ".ckpt":
        raise ConfigError(f"--checkpoint {file}: the name of a checkpoint must end in .ckpt")
    if file.exists():
        raise ConfigError(f"--checkpoint {file} exists: choose a new file")
