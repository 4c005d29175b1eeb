"""What `repvgg pull SOURCE` may name."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from hub.catalogue import NETWORKS
from hub.errors import WrongRequest

SCHEMES = ("hf", "https", "http", "oci", "s3", "gs", "az")
# timm's own notation for a repository.
_TIMM_PREFIX = re.compile(r"hf[-_]hub:")


@dataclass(frozen=True)
class Address:
    """`hf://ORG/MODEL@REVISION` -> scheme `hf`, rest `ORG/MODEL`, revision. Others have no revision of this form."""

    scheme: str
    rest: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.scheme}://{self.rest}"


@dataclass(frozen=True)
class How:
    """What a file does not say about itself. `format`: one of hub.local.FORMATS; `labels`: a file, or `imagenet`."""

    format: str | None = None
    arch: str | None = None
    preprocess: str | None = None
    labels: str | None = None
    output: str | None = None
    averaged: bool = False


def parse(source: str, revision: str | None = None) -> Address:
    """An address, or a short name of the catalogue. Raises WrongRequest."""
    source = _TIMM_PREFIX.sub("hf://", source.strip())
    if source.lower() in NETWORKS:
        return Address("hf", NETWORKS[source.lower()].repository, revision)
    scheme, separator, rest = source.partition("://")
    if not separator:
        raise WrongRequest(_unknown(source))
    if scheme not in SCHEMES:
        raise WrongRequest(f"{scheme}:// is not known; known: {', '.join(f'{known}://' for known in SCHEMES)}")
    if scheme != "hf":
        if revision:
            raise WrongRequest(f"--revision is for hf:// addresses, not for {scheme}://")
        return Address(scheme, rest)
    rest, _, given = rest.rstrip("/").partition("@")
    if given and revision and given != revision:
        raise WrongRequest(f"two revisions: {given!r} in the address and --revision {revision!r}")
    return Address(scheme, rest, given or revision)


def _unknown(source: str) -> str:
    nearest = difflib.get_close_matches(source.lower(), NETWORKS, n=1, cutoff=0.0)[0]
    if "/" in source:
        return f"{source!r} has no scheme: write hf://{source} for a repository of the Hub"
    return f"there is no {source!r}; did you mean {nearest!r}? repvgg pull --list shows all short names"
