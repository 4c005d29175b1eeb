"""`repvgg push`: a bundle that is here -> a registry, a bucket or a repository of the Hub.

1. it appears there complete or not at all;
2. what is there is never changed: the same version again is found equal, or refused;
3. what is printed names the content for good, by its digest or commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hub import addresses
from hub.addresses import Address
from hub.errors import Unusable, WrongRequest
from hub.places import buckets, images
from hub.progress import Progress
from hub.sources.arrivals import PAUSES_S
from hub.sources.objects import PACKAGES, Objects, Place
from hub.sources.trust import Trust
from hub.sources.web import Web
from models.errors import BundleError
from models.store import Bundle, open_bundle


def push(
    model: str,
    target: str,
    environ: Mapping[str, str],
    progress: Progress,
    insecure_hosts: Sequence[str] = (),
    pauses_s: Sequence[float] = PAUSES_S,
) -> str:
    """A bundle -> where it is now, named by its digest. Raises HubError."""
    address = addresses.parse(target)
    if address.scheme not in ("oci", "hf", *PACKAGES):
        raise WrongRequest(f"bundles are pushed to oci://, hf://, s3://, gs:// and az://, not to {address.scheme}://")
    try:
        if address.scheme == "hf":
            return _to_hub(open_bundle(model), address, environ, progress, insecure_hosts, pauses_s)
        if address.scheme == "oci":
            return _to_registry(open_bundle(model), address, environ, progress, insecure_hosts, pauses_s)
        place = Place.parse(address.scheme, address.rest)
        if place.digest:
            raise WrongRequest(f"{target} has a digest, which is known only after a push: leave it out")
        return buckets.push(open_bundle(model), Objects(place, progress, pauses_s))
    except BundleError as error:
        raise Unusable(str(error)) from error


def _to_hub(
    bundle: Bundle,
    address: Address,
    environ: Mapping[str, str],
    progress: Progress,
    insecure_hosts: Sequence[str],
    pauses_s: Sequence[float],
) -> str:
    from hub.places import published  # imports huggingface_hub
    from hub.sources import huggingface

    web = Web(Trust.of(insecure_hosts, [huggingface.endpoint(environ)]), progress, pauses_s)
    hub = huggingface.HuggingFace(environ, web)
    return published.push(bundle, hub, hub.repository(address.rest, address.revision), web)


def _to_registry(
    bundle: Bundle,
    address: Address,
    environ: Mapping[str, str],
    progress: Progress,
    insecure_hosts: Sequence[str],
    pauses_s: Sequence[float],
) -> str:
    registry = images.open_registry(address.rest, insecure_hosts, environ, progress, pauses_s)
    if not registry.reference.tag:
        raise WrongRequest(f"{address} has no tag: write oci://REGISTRY/NAME:TAG")
    return f"{registry.reference}@{images.push(bundle, registry, progress)}"
