"""`repvgg pull`: from an address to a bundle in the store.

1. only what was named is fetched, and nothing is fetched for an address that cannot work;
2. an existing bundle is found equal, or the pull is refused; it is never changed;
3. a pull that fails leaves no partial bundle, and what it fetched is not fetched again;
4. our own bundles from a registry or an archive need no package of the extra `pull`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hub import addresses, bundles, shelf
from hub.addresses import Address, How
from hub.errors import HubError, Unusable, Unverified, WrongRequest
from hub.places import buckets, downloads, images
from hub.progress import Progress
from hub.sources.arrivals import PAUSES_S
from hub.sources.objects import Objects, Place
from hub.sources.trust import Trust, without_secrets
from hub.sources.web import Web
from models import signing
from models.errors import BundleError, KeyFileError
from models.manifest import Manifest, Source
from models.store import MANIFEST, STORE, Bundle, open_bundle, read
from weights.errors import WeightsError


@dataclass(frozen=True)
class Request:
    """`insecure_hosts`: hosts that may be private and without TLS; `sha256` and `how`: of a file at https://;
    `verify_key`: a bundle that none of the public keys in this file has signed is refused."""

    source: str
    store: Path = STORE
    name: str | None = None
    version: str | None = None
    revision: str | None = None
    insecure_hosts: tuple[str, ...] = ()
    sha256: str | None = None
    how: How = field(default_factory=How)
    verify_key: Path | None = None


def pull(
    request: Request, environ: Mapping[str, str], progress: Progress, pauses_s: Sequence[float] = PAUSES_S
) -> Bundle:
    """`pauses_s`: before each further attempt. Raises HubError."""
    address = addresses.parse(request.source, request.revision)
    openers = {"hf": _from_hub, "https": _from_web, "http": _from_web, "oci": _from_registry}
    try:
        if request.verify_key:
            signing.checker(request.verify_key)  # before anything is fetched
        bundle = openers.get(address.scheme, _from_bucket)(request, address, environ, progress, pauses_s)
        shelf.tidy(bundle.folder, request.store)
        return bundle
    except HubError:
        raise
    except KeyFileError as error:
        raise WrongRequest(f"--verify-key: {error}") from error
    except (WeightsError, BundleError) as error:
        raise Unusable(in_one_line(str(error))) from error
    except OSError as error:
        raise Unusable(f"{error.filename or request.store} cannot be written or read: {error.strerror}") from error


def _from_hub(
    request: Request, address: Address, environ: Mapping[str, str], progress: Progress, pauses_s: Sequence[float]
) -> Bundle:
    from hub.conversion import classifier as conversion
    from hub.places import repository as repositories  # imports huggingface_hub and onnx
    from hub.sources import huggingface

    web = Web(Trust.of(request.insecure_hosts, [huggingface.endpoint(environ)]), progress, pauses_s)
    hub = huggingface.HuggingFace(environ, web)
    found = hub.repository(address.rest, address.revision)
    progress.say(f"{address} at {found.commit}")
    opened = repositories.Opened(hub, found, progress)
    if repositories.is_bundle(opened):
        return _adopt(request, repositories.fetch_bundle(opened, request.store), progress)
    _need_bundle(request)
    folder = place(request, address.rest.rpartition("/")[2], found.commit[:12])
    if bundle := already_there(folder, str(address), found.commit):
        return bundle
    classifier, licence = repositories.recognise(opened)(opened, request.store)
    return conversion.write(classifier, opened.source(str(address), licence), folder)


def _from_web(
    request: Request, address: Address, environ: Mapping[str, str], progress: Progress, pauses_s: Sequence[float]
) -> Bundle:
    web = Web(Trust.of(request.insecure_hosts), progress, pauses_s)
    path, digest = downloads.fetch(str(address), request.sha256, environ, web)
    if downloads.is_tar(path.name):
        with shelf.temporary(path.parent) as unpacked:
            return _adopt(request, bundles.unpack(path, unpacked), progress)
    _need_bundle(request)
    folder = place(request, path.stem, digest[:12])
    shown, revision = without_secrets(str(address)), f"sha256:{digest}"
    if bundle := already_there(folder, shown, revision):
        return bundle
    from hub import local  # imports onnx
    from hub.conversion import classifier as conversion

    made = local.classifier(path, request.how, progress.say)
    return conversion.write(made, Source(address=shown, revision=revision), folder)


def _from_registry(
    request: Request, address: Address, environ: Mapping[str, str], progress: Progress, pauses_s: Sequence[float]
) -> Bundle:
    registry = images.open_registry(address.rest, request.insecure_hosts, environ, progress, pauses_s)
    cache = downloads.cache(environ).parent / "layers"
    with shelf.temporary(cache) as unpacked:
        fetched, digest = images.fetch(registry, cache, unpacked)
        progress.say(f"{registry.reference} at {digest}")
        return _adopt(request, fetched, progress)


def _from_bucket(
    request: Request, address: Address, environ: Mapping[str, str], progress: Progress, pauses_s: Sequence[float]
) -> Bundle:
    cache = downloads.cache(environ).parent / "objects"
    objects = Objects(Place.parse(address.scheme, address.rest), progress, pauses_s)
    with shelf.temporary(cache) as unpacked:
        return _adopt(request, buckets.fetch(objects, cache, request.store, unpacked), progress)


def convert(path: Path, request: Request, progress: Progress) -> Bundle:
    """A local file -> a bundle; `request` says where, and how. Raises HubError."""
    from hub import local  # imports onnx
    from hub.conversion import classifier as conversion

    try:
        made = local.classifier(path, request.how, progress.say)
        return conversion.write(made, None, place(request, path.stem, "1"))
    except (WeightsError, BundleError) as error:
        raise Unusable(in_one_line(str(error))) from error
    except OSError as error:
        raise Unusable(f"{error.filename or path} cannot be written or read: {error.strerror}") from error


def explain(model: str, request: Request, progress: Progress) -> Bundle:
    """A local bundle -> a new version of it that explains its answers. Raises HubError."""
    from hub.conversion.explained import add_features  # imports onnx

    try:
        bundle = open_bundle(model)
        manifest = bundle.manifest
        if not request.version:
            raise WrongRequest(f"--version V names the new version of {manifest.name} {manifest.version}")
        return add_features(bundle, place(request, manifest.name, manifest.version), progress.say)
    except BundleError as error:
        raise Unusable(str(error)) from error


def in_one_line(text: str, most: int = 5) -> str:
    """Shortens what would take many lines: all missing weights, for instance."""
    first, *more = (line.strip() for line in text.splitlines())
    left_out = f" and {len(more) - most} more" if len(more) > most else ""
    return f"{first} {', '.join(more[:most])}{left_out}".strip()


def _adopt(request: Request, fetched: Path, progress: Progress) -> Bundle:
    content = read(fetched / MANIFEST)
    if request.verify_key:
        _verify_signature(request.verify_key, fetched, content, request.source)
    manifest = Manifest.from_json(content)
    folder = place(request, manifest.name, manifest.version)
    bundle = bundles.adopt(fetched, folder)
    if signing.read(fetched) and not signing.read(folder):
        progress.say("  the copy is not signed: its manifest has another name or version")
    return bundle


def _verify_signature(key: Path, fetched: Path, manifest: bytes, source: str) -> None:
    """Raises Unverified, KeyFileError and ImportError."""
    check = signing.checker(key)
    try:
        check(fetched, manifest)
    except BundleError as error:
        raise Unverified(str(error).replace(str(fetched), without_secrets(source))) from error


def _need_bundle(request: Request) -> None:
    """Raises Unverified if a signed bundle is required: other sources have no signature."""
    if request.verify_key:
        raise Unverified(
            f"{without_secrets(request.source)} is not a bundle, so it cannot be signed with {request.verify_key}"
        )


def place(request: Request, name: str, version: str) -> Path:
    """The folder of the new bundle. Raises WrongRequest for a name that is invalid in a store."""
    parts = request.name or name, request.version or version
    for flag, part in zip(("--name", "--version"), parts, strict=True):
        if not part or part.startswith(".") or not all(letter.isalnum() or letter in "._-" for letter in part):
            raise WrongRequest(f"{flag} {part!r} is not a name: use letters, digits, dot, dash and underscore")
    return request.store.joinpath(*parts)


def already_there(folder: Path, address: str, revision: str) -> Bundle | None:
    """The bundle in `folder` if it is the requested one. Raises WrongRequest if it is another one."""
    if not (folder / MANIFEST).exists():
        return None
    bundle = open_bundle(folder)
    source = bundle.manifest.source
    if source == Source(
        address=address,
        revision=revision,
        licence=source.licence if source else None,
        published=source.published if source else None,
    ):
        return bundle
    origin = f"{source.address} at {source.revision}" if source else "elsewhere"
    raise WrongRequest(f"{folder} already exists, from {origin}: give --version or --name")
