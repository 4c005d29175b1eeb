"""A bundle as a version of a repository of the Hub: one commit, with the version as its tag.

1. the commit has the bundle's files and none of the previous bundle's; other files (README.md) stay;
2. a version that has a tag is found equal, or the push is refused;
3. a push that died before the tag is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from hub import bundles
from hub.errors import WrongRequest
from hub.progress import megabytes
from hub.sources.commits import Commits
from hub.sources.huggingface import HuggingFace, Repository
from hub.sources.web import Web
from models import signing
from models.errors import BundleError
from models.manifest import Manifest
from models.store import MANIFEST, read


def push(files: Mapping[str, Path], manifest: Manifest, hub: HuggingFace, found: Repository, web: Web) -> str:
    """`files`: those of a bundle -> the address with the commit.

    Raises WrongRequest for a version that exists, and HubError.
    """
    version, content = manifest.version, read(files[MANIFEST])
    commits = Commits(hub, found, web)
    if tagged := commits.tags().get(version):
        if _manifest(hub, hub.repository(found.name, tagged)) != content:
            raise _taken(found, version)
        web.progress.say(f"  {version} already exists and is equal")
        return f"hf://{found.name}@{tagged}"
    old = _manifest(hub, found)
    if old == content:
        commit = found.commit
    else:
        before = _parsed(old)
        if before and before.version == version:
            raise _taken(found, version)
        gone = sorted(_files_of(before, found) & found.files.keys() - files.keys())
        commit = commits.commit(files, gone, f"{manifest.name} {version}")
        for name, path in files.items():
            web.progress.say(f"  {name}  {megabytes(path.stat().st_size)}")
    commits.tag(version, commit)
    return f"hf://{found.name}@{commit}"


def _taken(found: Repository, version: str) -> WrongRequest:
    return WrongRequest(
        f"hf://{found.name} already has version {version}, and a pushed bundle is never changed: push another version"
    )


def _manifest(hub: HuggingFace, found: Repository) -> bytes | None:
    if MANIFEST not in found.files:
        return None
    return hub.file(found, MANIFEST, bundles.MAX_MANIFEST_BYTES).read_bytes()


def _parsed(manifest: bytes | None) -> Manifest | None:
    """None, too, if another program wrote it."""
    try:
        return Manifest.from_json(manifest) if manifest else None
    except BundleError:
        return None


def _files_of(old: Manifest | None, found: Repository) -> set[str]:
    """The files of the current bundle, golden images included."""
    if old is None:
        return set()
    folder = PurePosixPath(old.golden.file).parent
    images = {name for name in found.files if folder.name and PurePosixPath(name).parent == folder}
    return {*bundles.named_files(old), *images, signing.FILE}
