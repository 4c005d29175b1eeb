"""A new version of a bundle: all that the old one has, and more. The old one stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from models.errors import BundleError
from models.manifest import Artifact, Manifest
from models.store import MANIFEST, Bundle, name_and_version, write_bundle
from training.errors import ConfigError


def check_new(folder: Path) -> tuple[str, str]:
    """Name and version that `folder` gives to a bundle. Raises ConfigError for a folder that cannot be a new one."""
    if folder.exists():
        raise ConfigError(f"{folder} exists: a published bundle is never changed; give the next version")
    try:
        return name_and_version(folder)
    except BundleError as error:
        raise ConfigError(str(error)) from error


def write_version(
    bundle: Bundle,
    folder: Path,
    artifacts: Sequence[Artifact],
    files: Mapping[str, bytes | Path],
    tolerance: Mapping[str, float],
    **changes: Any,
) -> Bundle:
    """Write `bundle` into `folder` with further artifacts, their files (name -> content, or a file to copy) and golden
    tolerances, and with other values for keys of the manifest; what is of the same kind as an old one replaces it.

    Raises ConfigError, BundleError.
    """
    name, version = check_new(folder)
    old = bundle.manifest
    kinds = {(artifact.format, artifact.precision) for artifact in artifacts}
    kept = [artifact for artifact in old.artifacts if (artifact.format, artifact.precision) not in kinds]
    left_out = {MANIFEST, *(artifact.file for artifact in old.artifacts if artifact not in kept)}
    manifest = old.model_copy(
        update={
            "name": name,
            "version": version,
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "artifacts": [*kept, *artifacts],
            "golden": old.golden.model_copy(update={"tolerance": {**old.golden.tolerance, **tolerance}}),
            **changes,
        }
    )
    present = {str(path.relative_to(bundle.folder)): path for path in bundle.folder.rglob("*") if path.is_file()}
    kept_files = {name: path for name, path in present.items() if name not in left_out}
    return write_bundle(folder, Manifest.from_json(manifest.to_json()), {**kept_files, **files})
