"""Checks that a new bundle or checkpoint can be written, before the work for it begins; which code writes it."""

from __future__ import annotations

import os
import subprocess
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


def git_commit() -> str:
    """The commit of this code: SOURCE_COMMIT, which a container image sets, else git's, else `unknown`."""
    if commit := os.environ.get("SOURCE_COMMIT"):
        return commit
    command, folder = ["git", "rev-parse", "HEAD"], Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:  # git is not installed
        return "unknown"
    return done.stdout.strip() or "unknown"
