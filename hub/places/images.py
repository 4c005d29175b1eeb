"""A bundle as an OCI image: one layer per file, under `models/`, where KServe looks; it can be mounted as a volume.

1. the same bundle is the same image, bit by bit: layers hold no time and no owner; only a digest names it for good;
2. other clients of registries can read it: each layer is titled as the `.tar` that it is;
3. what `oras push` made of a bundle's files or folder is read as well.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hub import bundles, space
from hub.errors import Unusable, WrongRequest
from hub.progress import Progress, megabytes
from hub.sources.registry import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, Reference, Registry
from hub.sources.web import Web
from models.manifest import Manifest
from models.store import read

TITLE = "org.opencontainers.image.title"


def layer(name: str, content: bytes) -> bytes:
    """A `.tar` with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo(f"models/{name}")
        member.size, member.mode = len(content), 0o644
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def open_registry(
    rest: str, hosts: Iterable[str], environ: Mapping[str, str], progress: Progress, pauses_s: Sequence[float]
) -> Registry:
    """Raises WrongRequest."""
    reference = Reference.parse(rest)
    return Registry(reference, environ, lambda trust: Web(trust, progress, pauses_s), [host for host in hosts if host])


def push(files: Mapping[str, Path], manifest: Manifest, registry: Registry, progress: Progress) -> str:
    """`files`: those of a bundle -> the image's digest.

    Raises WrongRequest for a tag that exists, and the registry's errors.
    """
    if registry.exists():
        raise WrongRequest(
            f"{registry.reference} already exists, and a pushed bundle is never changed: give another tag"
        )
    layers, diff_ids = [], []
    for name, path in files.items():
        content = layer(name, read(path))
        described = registry.push_blob(content)
        diff_ids.append(f"sha256:{hashlib.sha256(content).hexdigest()}")
        layers.append({"mediaType": LAYER_TYPE, **described, "annotations": {TITLE: f"{name}.tar"}})
        progress.say(f"  {name}  {megabytes(len(content))}")
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    described = registry.push_blob(json.dumps(config).encode())
    annotations = {"org.opencontainers.image.version": manifest.version, TITLE: manifest.name}
    return registry.push_manifest(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, **described},
            "layers": layers,
            "annotations": annotations,
        }
    )


def fetch(registry: Registry, cache: Path, unpacked: Path) -> tuple[Path, str]:
    """-> the folder of the bundle under `unpacked`, and the image's digest. Raises HubError."""
    manifest, digest = registry.manifest()
    sizes = [int(described["size"]) for described in manifest["layers"]]
    if len(sizes) > bundles.MAX_MEMBERS or sum(sizes) > bundles.MAX_UNPACKED_BYTES:
        raise Unusable(
            f"{registry.reference} has {len(sizes)} layers and {megabytes(sum(sizes))}: too large for a bundle"
        )
    space.check({cache: 2 * sum(sizes)})
    for described in manifest["layers"]:
        archive, title = registry.layer(described, cache), (described.get("annotations") or {}).get(TITLE)
        if title and not tarfile.is_tarfile(archive):  # a file that oras pushed
            bundles.put(archive, str(title), unpacked)
        else:
            bundles.extract(archive, unpacked)
    return bundles.found_in(unpacked, str(registry.reference)), digest
