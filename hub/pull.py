"""`repvgg pull`: from an address to a bundle in the store.

1. only what was named is fetched, and nothing is fetched for an address that cannot work;
2. a bundle that is there already is found equal, or the pull is refused; it is never changed;
3. a pull that fails leaves no half bundle, and what it fetched is not fetched again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub import addresses
from hub.addresses import Address
from hub.conversion import classifier as conversion
from hub.errors import HubError, Unusable, WrongRequest
from hub.progress import Progress
from hub.sources.trust import Trust
from hub.sources.web import PAUSES_S, Web
from models.errors import BundleError
from models.manifest import Source
from models.store import MANIFEST, STORE, Bundle, open_bundle
from weights.errors import WeightsError


@dataclass(frozen=True)
class Request:
    """`insecure_hosts`: hosts that may be private and without TLS."""

    source: str
    store: Path = STORE
    name: str | None = None
    version: str | None = None
    revision: str | None = None
    insecure_hosts: tuple[str, ...] = ()


def pull(
    request: Request, environ: Mapping[str, str], progress: Progress, pauses_s: Sequence[float] = PAUSES_S
) -> Bundle:
    """`pauses_s`: before each further attempt. Raises HubError."""
    address = addresses.parse(request.source, request.revision)
    try:
        return _from_hub(request, address, environ, progress, pauses_s)
    except HubError:
        raise
    except (WeightsError, BundleError) as error:
        raise Unusable(str(error)) from error
    except OSError as error:
        raise Unusable(f"{error.filename or request.store} cannot be written or read: {error.strerror}") from error


def _from_hub(
    request: Request, address: Address, environ: Mapping[str, str], progress: Progress, pauses_s: Sequence[float]
) -> Bundle:
    from hub import repository as repositories  # imports huggingface_hub
    from hub.sources import huggingface

    web = Web(Trust.of(request.insecure_hosts, [huggingface.endpoint(environ)]), progress, pauses_s)
    hub = huggingface.HuggingFace(environ, web)
    found = hub.repository(address.rest, address.revision)
    progress.say(f"{address} at {found.commit}")
    opened = repositories.Opened(hub, found, progress)
    folder = place(request, address.rest.rpartition("/")[2], found.commit[:12])
    if bundle := already_there(folder, str(address), found.commit):
        return bundle
    classifier, licence = repositories.recognise(opened)(opened, request.store)
    return conversion.write(classifier, opened.source(str(address), licence), folder)


def place(request: Request, name: str, version: str) -> Path:
    """The folder of the new bundle. Raises WrongRequest for a name that no store can have."""
    parts = request.name or name, request.version or version
    for flag, part in zip(("--name", "--version"), parts, strict=True):
        if not part or part.startswith(".") or not all(letter.isalnum() or letter in "._-" for letter in part):
            raise WrongRequest(f"{flag} {part!r} is no name: letters, digits, dot, dash and underscore")
    return request.store.joinpath(*parts)


def already_there(folder: Path, address: str, revision: str) -> Bundle | None:
    """The bundle in `folder` if it is what is asked for. Raises WrongRequest if another one is there."""
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
    raise WrongRequest(f"{folder} is there already, from {origin}: give --version or --name")
