"""The content of a store: list it, remove from it, and keep equal files once.

1. a draft that a killed process left is removed a day later, with the next bundle, never one that is being written;
2. equal files of two bundles are one file with two names (hard links), so that each bundle is still whole by itself.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hub.errors import WrongRequest
from models.errors import BundleError
from models.manifest import Manifest
from models.store import MANIFEST, read

OLD_S = 24 * 3600.0
_TEMPORARY = "unpacked-"


def bundles(store: Path) -> Iterator[tuple[Path, Manifest | BundleError]]:
    """Each folder that has a manifest, and the manifest or what is wrong with it; files are not verified."""
    for path in sorted(store.glob(f"[!.]*/[!.]*/{MANIFEST}")):
        try:
            yield path.parent, Manifest.from_json(read(path))
        except BundleError as error:
            yield path.parent, error


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def remove(name: str, store: Path) -> Path:
    """Delete NAME/VERSION in the store: atomically for readers, since it is renamed first. Raises WrongRequest."""
    folder = store / name
    if Path(name).is_absolute() or ".." in Path(name).parts or len(Path(name).parts) != 2:
        raise WrongRequest(f"{name!r} is not NAME/VERSION")
    if not (folder / MANIFEST).is_file():
        there = ", ".join(str(path.relative_to(store)) for path, _ in bundles(store)) or "nothing"
        raise WrongRequest(f"there is no bundle {name} in {store}; it has: {there}")
    gone = folder.with_name(f".{folder.name}-removed-{os.getpid()}")
    folder.rename(gone)
    shutil.rmtree(gone)
    with suppress(OSError):  # other versions are there
        folder.parent.rmdir()
    return folder


def tidy(folder: Path, store: Path) -> int:
    """After the new bundle `folder` is written: share its files, remove what killed processes left -> bytes shared."""
    for draft in store.glob("*/.*-*"):
        if draft.is_dir() and time.time() - draft.stat().st_mtime > OLD_S:
            shutil.rmtree(draft, ignore_errors=True)
    known = {
        digest: other / file
        for other, manifest in bundles(store)
        if other != folder and isinstance(manifest, Manifest)
        for file, digest in manifest.checksums
    }
    mine = Manifest.from_json(read(folder / MANIFEST))
    shared = [_share(folder / file, known[digest]) for file, digest in mine.checksums if digest in known]
    return sum(shared)


@contextmanager
def temporary(place: Path) -> Iterator[Path]:
    """A folder in `place` that is removed afterwards; those of killed processes go first."""
    place.mkdir(parents=True, exist_ok=True)
    for left in place.glob(f"{_TEMPORARY}*"):
        if time.time() - left.stat().st_mtime > OLD_S:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=place) as folder:
        yield Path(folder)


def _share(path: Path, other: Path) -> int:
    """`path` becomes another name of `other` if their content is the same."""
    link = path.with_name(f".{path.name}.link")
    try:
        if path.samefile(other) or not filecmp.cmp(path, other, shallow=False):
            return 0
        os.link(other, link)
        link.replace(path)
    except OSError:  # the file system has no hard links, or the other bundle was removed: two copies are fine too
        return 0
    return path.stat().st_size
