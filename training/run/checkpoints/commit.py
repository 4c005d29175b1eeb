"""The version of this code."""

from __future__ import annotations

import os
import subprocess
from importlib import metadata
from pathlib import Path


def code_version() -> str:
    """The version of this distribution, and its commit."""
    try:
        version = metadata.version("repvgg")
    except metadata.PackageNotFoundError:  # the code is used without being installed
        version = "unknown"
    return f"repvgg {version}, commit {git_commit()}"


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
