"""`repvgg push`: a local bundle -> a registry, a bucket or a repository of the Hub.

1. it appears there complete or not at all;
2. an existing version is never changed: pushing it again finds it equal, or is refused;
3. the printed address names the content permanently, by its digest or commit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub import addresses, bundles
from hub.addresses import Address
from hub.errors import Unusable, WrongRequest
from hub.places import buckets, images
from hub.progress import Progress
from hub.sources.arrivals import PAUSES_S
from hub.sources.objects import PACKAGES, Objects, Place
from hub.sources.trust import Trust
from hub.sources.web import Web
from models import signing
from models.errors import BundleError, KeyFileError
from models.manifest import Manifest
from models.store import MANIFEST, Bundle, open_bundle, read


@dataclass(frozen=True)
class Sending:
    """What is sent: the bundle's files, the manifest last; and how."""

    files: Mapping[str, Path]
    manifest: Manifest
    environ: Mapping[str, str]
    progress: Progress
    insecure_hosts: Sequence[str]
    pauses_s: Sequence[float]


def push(
    model: str,
    target: str,
    environ: Mapping[str, str],
    progress: Progress,
    insecure_hosts: Sequence[str] = (),
    pauses_s: Sequence[float] = PAUSES_S,
    sign_key: Path | None = None,
) -> str:
    """A bundle -> its new address, with its digest or commit. `sign_key`: adds a signature to what is sent.

    Raises HubError and ImportError.
    """
    address = addresses.parse(target)
    ways = {"oci": _to_registry, "hf": _to_hub, **dict.fromkeys(PACKAGES, _to_bucket)}
    if address.scheme not in ways:
        raise WrongRequest(f"bundles are pushed to oci://, hf://, s3://, gs:// and az://, not to {address.scheme}://")
    try:
        bundle = open_bundle(model)
        with tempfile.TemporaryDirectory() as folder:
            files = bundles.all_files(bundle)
            if sign_key:
                signature = _signed(bundle, sign_key, Path(folder))
                files = {**files, signing.FILE: signature, MANIFEST: files.pop(MANIFEST)}
            sending = Sending(files, bundle.manifest, environ, progress, insecure_hosts, pauses_s)
            return ways[address.scheme](sending, address)
    except KeyFileError as error:
        raise WrongRequest(f"--sign-key: {error}") from error
    except BundleError as error:
        raise Unusable(str(error)) from error


def _signed(bundle: Bundle, key: Path, folder: Path) -> Path:
    """The signatures that the bundle has, and one more."""
    path, line = folder / signing.FILE, signing.sign(read(bundle.folder / MANIFEST), key)
    before = read(bundle.folder / signing.FILE).splitlines() if signing.read(bundle.folder) else []
    path.write_bytes(b"".join(dict.fromkeys([*(one.strip() + b"\n" for one in before), line])))
    return path


def _to_registry(sending: Sending, address: Address) -> str:
    registry = images.open_registry(
        address.rest, sending.insecure_hosts, sending.environ, sending.progress, sending.pauses_s
    )
    if not registry.reference.tag:
        raise WrongRequest(f"{address} has no tag: write oci://REGISTRY/NAME:TAG")
    return f"{registry.reference}@{images.push(sending.files, sending.manifest, registry, sending.progress)}"


def _to_bucket(sending: Sending, address: Address) -> str:
    place = Place.parse(address.scheme, address.rest)
    if place.digest:
        raise WrongRequest(f"{address} has a digest, which is known only after a push: leave it out")
    return buckets.push(sending.files, Objects(place, sending.progress, sending.pauses_s))


def _to_hub(sending: Sending, address: Address) -> str:
    from hub.places import published  # imports huggingface_hub
    from hub.sources import huggingface

    trust = Trust.of(sending.insecure_hosts, [huggingface.endpoint(sending.environ)])
    web = Web(trust, sending.progress, sending.pauses_s)
    hub = huggingface.HuggingFace(sending.environ, web)
    found = hub.repository(address.rest, address.revision)
    return published.push(sending.files, sending.manifest, hub, found, web)
