"""Where a new bundle may be written, asked before the work for it begins."""

from __future__ import annotations

from pathlib import Path

from models.errors import BundleError
from models.store import name_and_version
from training.errors import ConfigError


def check_new(folder: Path) -> tuple[str, str]:
    """Name and version that `folder` gives to a bundle. Raises ConfigError for a folder that cannot be a new one."""
    if folder.exists():
        raise ConfigError(f"{folder} exists: a published bundle is never changed; give the next version")
    try:
        return name_and_version(folder)
    except BundleError as error:
        raise ConfigError(str(error)) from error
