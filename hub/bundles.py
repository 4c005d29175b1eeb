"""Our own bundles from elsewhere: they enter the store unchanged, or not at all."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from hub.errors import Unusable, WrongRequest
from hub.progress import megabytes
from models import golden, signing
from models.atomic import drafted
from models.manifest import Manifest
from models.store import MANIFEST, Bundle, open_bundle, read

MAX_MANIFEST_BYTES = 1 << 22
MAX_MEMBERS = 10_000
MAX_UNPACKED_BYTES = 16 << 30


def named_files(manifest: Manifest) -> list[str]:
    """The files that a manifest names, without the golden images, which golden.json names."""
    return [file for file, _ in manifest.checksums]


def golden_images(manifest: Manifest, golden_json: bytes) -> list[str]:
    return list(golden_digests(manifest, golden_json))


def golden_digests(manifest: Manifest, golden_json: bytes) -> dict[str, str]:
    """File -> sha256. Raises Unusable."""
    folder = PurePosixPath(manifest.golden.file).parent
    try:
        images = golden.GoldenSet.model_validate_json(golden_json).images
        return {str(folder / image.file): image.sha256 for image in images}
    except ValueError as error:
        raise Unusable(f"{manifest.golden.file} is not valid: {error}") from error


def all_files(bundle: Bundle) -> dict[str, Path]:
    """Everything that makes up a bundle, its manifest last. Raises Unusable and BundleError."""
    golden_json = read(bundle.folder / bundle.manifest.golden.file)
    names = [*named_files(bundle.manifest), *golden_images(bundle.manifest, golden_json)]
    signature = [signing.FILE] if signing.read(bundle.folder) else []
    return {name: bundle.folder / name for name in (*names, *signature, MANIFEST)}


def adopt(fetched: Path, folder: Path) -> Bundle:
    """A copy of a fetched bundle as the new bundle `folder`; only its name and version may differ, and then it is no
    longer signed.

    Raises BundleError for an incomplete one, WrongRequest if another one is there.
    """
    original = read(fetched / MANIFEST)
    manifest = Manifest.from_json(original)
    wanted = _renamed(original, manifest, folder)
    if (folder / MANIFEST).exists():
        if read(folder / MANIFEST) != wanted:
            raise WrongRequest(f"{folder} already exists and is another bundle: give --version or --name")
        if wanted == original:
            _copy_signature(fetched, folder)
        if wanted == original and signing.read(fetched) and not signing.read(folder):
            draft = folder / f".{signing.FILE}"
            draft.write_bytes(read(fetched / signing.FILE))
            draft.replace(folder / signing.FILE)
        return open_bundle(folder)
    files = named_files(manifest) + golden_images(manifest, read(fetched / manifest.golden.file))
    with drafted(folder) as draft:
        for name in files:
            target = draft / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fetched / name, target)
        if wanted == original:
            _copy_signature(fetched, draft)
        (draft / MANIFEST).write_bytes(wanted)
        for path in (draft, *draft.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        golden.load(open_bundle(draft))
    return open_bundle(folder)


def _copy_signature(fetched: Path, folder: Path) -> None:
    """Makes room for a file that replaces a folder, and the other way round."""
    if signing.read(fetched) and not signing.read(folder):
        draft = folder / f".{signing.FILE}"
        draft.write_bytes(read(fetched / signing.FILE))
        draft.replace(folder / signing.FILE)


def _renamed(original: bytes, manifest: Manifest, folder: Path) -> bytes:
    """The manifest, byte for byte if name and version stay the same."""
    if (manifest.name, manifest.version) == (folder.parent.name, folder.name):
        return original
    changed = json.loads(original) | {"name": folder.parent.name, "version": folder.name}
    return (json.dumps(changed, indent=2) + "\n").encode()


def unpack(archive: Path, folder: Path) -> Path:
    """The folder in `folder` that has the manifest of a `.tar`. Raises Unusable."""
    extract(archive, folder)
    return found_in(folder, archive.name)


def found_in(folder: Path, source: str) -> Path:
    found = sorted(folder.rglob(MANIFEST), key=lambda path: len(path.parts))
    if not found:
        raise Unusable(f"{source} has no {MANIFEST}: it is not a bundle")
    return found[0].parent


def extract(archive: Path, folder: Path) -> None:
    """Accepts only plain files and folders inside `folder`, and no more than a bundle can have. Raises Unusable."""
    try:
        with tarfile.open(archive) as tar:
            total = 0
            for number, member in enumerate(tar):
                total += member.size
                _check(archive.name, member, number, total)
                if member.isfile() and (content := tar.extractfile(member)):
                    target = folder / member.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("xb") as file:
                        shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise Unusable(f"{archive.name} is not a usable .tar: {error}") from error


def put(file: Path, name: str, folder: Path) -> None:
    """A copy of `file` as `name` in `folder`. Raises Unusable and OSError."""
    _check_name(file.name, name)
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


def _check_name(archive: str, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable() or path == PurePosixPath("."):
        raise Unusable(f"{archive} names {name!r}, which is outside its folder")


def _check(archive: str, member: tarfile.TarInfo, number: int, total: int) -> None:
    if member.name != ".":
        _check_name(archive, member.name)
    if not (member.isfile() or member.isdir()):
        raise Unusable(f"{archive} contains {member.name!r}, which is neither a file nor a folder")
    if number >= MAX_MEMBERS or total > MAX_UNPACKED_BYTES:
        raise Unusable(f"{archive} unpacks to more than {MAX_MEMBERS} files or {megabytes(MAX_UNPACKED_BYTES)}")
