"""Open and write model bundles, the folders `store/<name>/<version>/`.

1. a bundle is opened completely or not at all: every file in the manifest exists and has the right checksum
   (golden.json has the checksums of its images, and models.golden checks them);
2. nothing outside the folder is read, whatever the manifest says;
3. a bundle is written to a temporary folder and renamed: a reader never sees half a bundle;
4. a disk error is a BundleError that names the file.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from models.artifacts import choose
from models.atomic import drafted
from models.errors import BundleError
from models.fields import Slug, inside
from models.manifest import Artifact, Manifest, Precision

STORE = Path(__file__).parent / "store"
MANIFEST = "manifest.json"
# A leading dot marks the draft of a writer that is still running or was killed.
_VERSIONS = f"[!.]*/{MANIFEST}"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: `labels[class_id]` is the class's name."""

    folder: Path
    manifest: Manifest
    labels: tuple[str, ...]

    def artifact(self, formats: Sequence[str], precision: Precision) -> Artifact:
        """The artifact of `precision` whose format comes first in `formats`. Raises BundleError with a list."""
        return choose(self.manifest.artifacts, formats, precision, self.folder)

    def path(self, artifact: Artifact) -> Path:
        return self.folder / artifact.file


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def find_bundle(model: str | Path, store: Path = STORE) -> Path:
    """The folder of a bundle. `model`: that folder, a folder of versions (the newest is taken), or `name` or
    `name/version` in the store. Raises BundleError."""
    try:
        for place in _places(Path(model), store):
            if (place / MANIFEST).is_file():
                return place
    except OSError as error:  # the name is too long for the file system, or the folder is not accessible
        raise BundleError(f"{model} cannot be read: {error.strerror}") from error
    known = ", ".join(sorted(str(path.parent.relative_to(store)) for path in store.glob(f"*/{_VERSIONS}"))) or "none"
    raise BundleError(f"no model bundle at {model}: give a folder with a {MANIFEST}, or one in the store: {known}")


def find_versions(model: str | Path, store: Path = STORE) -> list[Path]:
    """The folders that `model` can stand for, the newest version first; only one if it names a version. A folder that
    has no manifest is among them if it is newer than all that have one. Raises BundleError if there is no bundle."""
    newest = find_bundle(model, store)
    if newest in (Path(model), store / model):
        return [newest]
    try:
        folders = [path for path in newest.parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise BundleError(f"{newest.parent} cannot be read: {error.strerror}") from error
    limit = _version_order(newest)
    versions = [path for path in folders if _version_order(path) > limit or (path / MANIFEST).is_file()]
    return sorted(versions, key=_version_order, reverse=True)


def _places(model: Path, store: Path) -> Iterator[Path]:
    yield from _versions(model)
    if not model.is_absolute() and ".." not in model.parts:
        yield from _versions(store / model)


def _versions(folder: Path) -> Iterator[Path]:
    """The folder itself, then the versions in it, newest first."""
    yield folder
    yield from sorted((path.parent for path in folder.glob(_VERSIONS)), key=_version_order, reverse=True)


def _version_order(folder: Path) -> tuple[bool, list[str | int]]:
    """Words come before numbers, and numbers are compared by value: beta < 2 < 10, 1.2 < 1.10."""
    # Text and digits alternate, so that the lists of any two names are comparable.
    parts = re.split(r"([0-9]+)", folder.name)
    return parts[0] == "", [int(part) if index % 2 else part for index, part in enumerate(parts)]


def open_bundle(model: str | Path, store: Path = STORE, trust: Callable[[Path, bytes], None] | None = None) -> Bundle:
    """Open and verify a bundle. `trust`: called with the folder and the bytes of its manifest before they are trusted,
    such as models.signing.checker. Raises BundleError, which names the file and the fault."""
    folder = find_bundle(model, store)
    text = read(folder / MANIFEST)
    if trust:
        trust(folder, text)
    try:
        manifest = Manifest.from_json(text)
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from error
    for file, digest in manifest.checksums:
        verify(folder, file, digest)
    return Bundle(folder, manifest, _labels(folder / manifest.labels.file, manifest.network.num_classes))


def _labels(path: Path, classes: int) -> tuple[str, ...]:
    try:
        labels = tuple(read(path).decode("utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is not UTF-8 text: {error}") from error
    if len(labels) != classes:
        raise BundleError(f"{path} has {len(labels)} labels, but the network has {classes} classes")
    return labels


def verify(folder: Path, file: str, digest: str) -> Path:
    """The path of `file` in the bundle. Raises BundleError unless it is inside the bundle and has this sha256."""
    path = folder / file
    try:
        if not path.is_file():
            raise BundleError(f"{path} is missing; copy the bundle again")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{path} is outside the bundle")
        found = sha256(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if found != digest:
        raise BundleError(f"{path} is corrupt: its sha256 is {found}, not {digest}; copy the bundle again")
    return path


def read(path: Path) -> bytes:
    """The file's bytes. Raises BundleError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error


def name_and_version(folder: Path) -> tuple[str, str]:
    """The last two parts of a bundle's folder. Raises BundleError if they are not valid names."""
    parts = folder.absolute().parent.name, folder.name
    try:
        return TypeAdapter(tuple[Slug, Slug]).validate_python(parts)
    except ValidationError as error:
        raise BundleError(f"{folder} must end in NAME/VERSION, made of letters, digits, '.', '_' and '-'") from error


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Bundle:
    """Write manifest and files (name -> content, or a file to copy), verify, then rename into place.

    Raises BundleError if `folder` exists, a name is outside it, a file does not match its checksum in the manifest, or
    the disk fails.
    """
    if folder.exists():
        raise BundleError(f"{folder} exists: a published bundle is never changed; give the next version")
    try:
        with drafted(folder) as draft:
            _fill(draft, manifest, files)
            bundle = open_bundle(draft)
    except OSError as error:
        file = f": {error.filename}" if error.filename else ""  # a full disk has none
        raise BundleError(f"{folder} cannot be written: {error.strerror or error}{file}") from error
    return replace(bundle, folder=folder)


def _fill(draft: Path, manifest: Manifest, files: Mapping[str, bytes | Path]) -> None:
    for name, content in files.items():
        try:
            target = draft / inside(name)
        except ValueError as error:
            raise BundleError(str(error)) from error
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            shutil.copyfile(content, target)
    (draft / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    # The service often runs as another user, whom mkdtemp and a strict umask would lock out.
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
