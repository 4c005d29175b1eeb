"""Open and write model bundles, the folders `store/<name>/<version>/`.

1. a bundle is opened whole or not at all: every file is there and has its checksum;
2. nothing outside the folder is read, whatever the manifest says;
3. a bundle is written to a temporary folder and renamed: a reader never sees half of one.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from models.errors import BundleError
from models.manifest import Artifact, Golden, Labels, Manifest, Precision

STORE = Path(__file__).parent / "store"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: `labels[class_id]` is the class's name."""

    folder: Path
    manifest: Manifest
    labels: tuple[str, ...]

    def artifact(self, formats: Iterable[str], precision: Precision) -> Artifact:
        """The first artifact of `precision` in the order of `formats`; BundleError lists what there is."""
        have: dict[tuple[str, str], Artifact] = {(a.format, a.precision): a for a in self.manifest.artifacts}
        for wanted in formats:
            if (wanted, precision) in have:
                return have[wanted, precision]
        present = ", ".join(f"{f} {p}" for f, p in have)
        raise BundleError(
            f"{self.folder} has no {' or '.join(formats)} artifact of precision {precision}; it has: {present}"
        )

    def path(self, artifact: Artifact) -> Path:
        return self.folder / artifact.file


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def find_bundle(model: str | Path) -> Path:
    """A folder, or `name` (its newest version) or `name/version` in the store -> the bundle's folder."""
    folder = Path(model)
    if (folder / MANIFEST).is_file():
        return folder
    in_store = STORE / folder
    if not folder.is_absolute() and ".." not in folder.parts:
        if (in_store / MANIFEST).is_file():
            return in_store
        versions = sorted((path.parent for path in in_store.glob(f"*/{MANIFEST}")), key=_version_order)
        if versions:
            return versions[-1]
    known = ", ".join(sorted(str(path.parent.relative_to(STORE)) for path in STORE.glob(f"*/*/{MANIFEST}"))) or "none"
    raise BundleError(f"no model bundle at {model}: give a folder with a {MANIFEST}, or one of the store: {known}")


def _version_order(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdigit() else -1, folder.name)


def open_bundle(model: str | Path) -> Bundle:
    """Open and verify a bundle. Raises BundleError that names the file and what is wrong with it."""
    folder = find_bundle(model)
    manifest = Manifest.from_json(_read(folder, MANIFEST))
    for file, digest in _checksums(manifest):
        verify(folder, file, digest)
    labels = tuple(_read(folder, manifest.labels.file).decode("utf-8").splitlines())
    if len(labels) != manifest.network.num_classes:
        raise BundleError(
            f"{folder / manifest.labels.file} has {len(labels)} labels, "
            f"the network has {manifest.network.num_classes} classes"
        )
    return Bundle(folder, manifest, labels)


def verify(folder: Path, file: str, digest: str) -> Path:
    """The path of `file` in the bundle if it is really inside it and has this sha256; else BundleError."""
    path = folder / file
    if not path.is_file():
        raise BundleError(f"{path} is missing: the manifest names it")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{path} leads out of the bundle")
    found = sha256(path)
    if found != digest:
        raise BundleError(f"{path} is corrupt: its sha256 is {found}, not {digest}; copy the bundle again")
    return path


def _checksums(manifest: Manifest) -> list[tuple[str, str]]:
    entries: list[Labels | Golden | Artifact] = [manifest.labels, manifest.golden, *manifest.artifacts]
    return [(entry.file, entry.sha256) for entry in entries]


def _read(folder: Path, file: str) -> bytes:
    try:
        return (folder / file).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder / file} cannot be read: {error.strerror}") from error


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Bundle:
    """Write manifest and files (name -> content, or a file to copy), verify, then rename into place.

    Raises BundleError if `folder` exists, a file does not match its checksum in the manifest, or the disk refuses.
    """
    if folder.exists():
        raise BundleError(f"{folder} exists: a published bundle is never changed; give the next version")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise BundleError(f"{folder.parent} cannot be written: {error.strerror}") from error
    try:
        for name, content in files.items():
            target = draft / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        (draft / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        open_bundle(draft)
        draft.chmod(0o755)  # mkdtemp makes it private; the service often runs as another user
        draft.rename(folder)
    except OSError as error:
        raise BundleError(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return open_bundle(folder)
