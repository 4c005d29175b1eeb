"""A new version of a bundle: everything in the old one, and more. The old version is not changed, and the new one
is not signed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any

from models import signing
from models.manifest import Artifact, Manifest
from models.store import MANIFEST, Bundle, name_and_version, write_bundle

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


def write_version(
    bundle: Bundle,
    folder: Path,
    artifacts: Sequence[Artifact] = (),
    files: Mapping[str, bytes | Path] = _NOTHING,
    tolerance: Mapping[str, float] = _NOTHING,
    **changes: Any,
) -> Bundle:
    """Write `bundle` to `folder` with additional artifacts, their files (name -> content, or a file to copy) and golden
    tolerances; `changes` are new values of manifest keys. Artifacts replace old ones of the same format and precision.

    Raises BundleError if the folder exists or does not end in NAME/VERSION, and as write_bundle does.
    """
    name, version = name_and_version(folder)
    old = bundle.manifest
    by_kind = {(artifact.format, artifact.precision): artifact for artifact in (*old.artifacts, *artifacts)}
    manifest = old.model_copy(
        update={
            "name": name,
            "version": version,
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "artifacts": list(by_kind.values()),
            "golden": old.golden.model_copy(update={"tolerance": {**old.golden.tolerance, **tolerance}}),
            **changes,
        }
    )
    new = Manifest.from_json(manifest.to_json())
    left_out = {MANIFEST, signing.FILE, *(file for file, _ in old.checksums)} - {file for file, _ in new.checksums}
    present = {str(path.relative_to(bundle.folder)): path for path in bundle.folder.rglob("*") if path.is_file()}
    kept_files = {name: path for name, path in present.items() if name not in left_out}
    return write_bundle(folder, new, {**kept_files, **files})
