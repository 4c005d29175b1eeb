"""A bundle's folder in a bucket: the same files under the same names.

1. the manifest is written last: without it there is no bundle, so nobody reads a partial one;
2. no object is ever replaced: an existing version is found equal, or the push is refused;
3. an object left by an interrupted push is compared, and not sent again;
4. every file is verified by its checksum in the manifest, and the manifest by the digest in the address, if it has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hub import bundles, space
from hub.errors import Unusable, Unverified, WrongRequest
from hub.progress import megabytes
from hub.sources.objects import Missing, Objects
from models import signing
from models.manifest import Manifest
from models.store import MANIFEST, read, sha256


def push(files: Mapping[str, Path], objects: Objects) -> str:
    """`files`: those of a bundle, the manifest last -> the address with the manifest's digest.

    Raises WrongRequest for a folder that holds another bundle.
    """
    content = read(files[MANIFEST])
    address = f"{objects.place}@sha256:{hashlib.sha256(content).hexdigest()}"
    if _has_manifest(objects, content):
        objects.progress.say(f"  {objects.place} already exists and is equal")
        return address
    for name, path in files.items():
        _send(objects, path, name)
    return address


def _has_manifest(objects: Objects, content: bytes) -> bool:
    """Raises WrongRequest if another one is there."""
    try:
        found = objects.read(MANIFEST, bundles.MAX_MANIFEST_BYTES)
    except Missing:
        return False
    if found != content:
        raise WrongRequest(f"{objects.place} already exists, and a pushed bundle is never changed: give another folder")
    return True


def _send(objects: Objects, path: Path, name: str) -> None:
    size = path.stat().st_size
    if objects.create(name, path):
        objects.progress.say(f"  {name}  {megabytes(size)}")
    elif objects.size(name) != size or objects.digest(name, size) != sha256(path):
        raise WrongRequest(
            f"{objects.place}/{name} already exists and is another file: remove what another push has left there, "
            "or give another folder"
        )


def fetch(objects: Objects, cache: Path, store: Path, unpacked: Path) -> Path:
    """-> `unpacked`, which holds the bundle's files (as links into the cache). Raises HubError and BundleError."""
    content = objects.read(MANIFEST, bundles.MAX_MANIFEST_BYTES)
    digest, wanted = hashlib.sha256(content).hexdigest(), objects.place.digest
    if wanted not in (None, digest):
        raise Unverified(f"{MANIFEST} of {objects.place} has the sha256 {digest}, but the address says {wanted}")
    objects.progress.say(f"{objects.place} at sha256:{digest}")
    (unpacked / MANIFEST).write_bytes(content)
    with suppress(Missing):
        (unpacked / signing.FILE).write_bytes(objects.read(signing.FILE, signing.MAX_BYTES))
    manifest = Manifest.from_json(content)
    named = dict(manifest.checksums)
    golden_json = named.pop(manifest.golden.file)
    _fetch(objects, {manifest.golden.file: golden_json}, cache, store, unpacked)
    images = bundles.golden_digests(manifest, read(unpacked / manifest.golden.file))
    _fetch(objects, named | images, cache, store, unpacked)
    return unpacked


def _fetch(objects: Objects, files: dict[str, str], cache: Path, store: Path, unpacked: Path) -> None:
    """`files`: name -> sha256."""
    sizes = {name: objects.size(name) for name in files}
    total = sum(sizes.values())
    if len(files) > bundles.MAX_MEMBERS or total > bundles.MAX_UNPACKED_BYTES:
        raise Unusable(f"{objects.place} has {len(files)} files and {megabytes(total)}: too large for a bundle")
    paths = {name: cache / digest for name, digest in files.items()}
    missing = sum(sizes[name] for name, path in paths.items() if not path.exists())
    space.check({cache: missing, store: total})
    for name, digest in files.items():
        path = paths[name]
        if path.exists() and sha256(path) != digest:
            path.unlink()
        if not path.exists():
            objects.fetch(name, sizes[name], digest, path)
        link = unpacked / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.absolute())
