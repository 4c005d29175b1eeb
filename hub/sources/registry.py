"""Images of an OCI registry: https://github.com/opencontainers/distribution-spec.

1. a manifest and every layer have the digest by which they were requested;
2. a tag that exists is never pushed again;
3. credentials are those of `docker login`; they go to the registry, and to the token server that it names.

The `oras` package is not used: its HTTP follows any redirect and cannot resume.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

from hub.errors import Unreachable, Unusable, Unverified, WrongRequest
from hub.sources.arrivals import Again, Digest, Remote, retrying
from hub.sources.trust import Trust
from hub.sources.web import Denied, Web

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MAX_MANIFEST_BYTES = 1 << 22
_REFERENCE = re.compile(
    r"(?P<host>[\w.-]+(:\d+)?)/(?P<name>[a-z0-9]+([._/-]+[a-z0-9]+)*)(:(?P<tag>[\w][\w.-]{0,127}))?"
    r"(@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
_LOOPBACK = re.compile(r"(localhost|127\.[\d.]+)(:\d+)?")


@dataclass(frozen=True)
class Reference:
    host: str
    name: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """`REGISTRY/NAME:TAG[@sha256:...]`. Raises WrongRequest."""
        match = _REFERENCE.fullmatch(text)
        if not match or not (match["tag"] or match["digest"]):
            raise WrongRequest(
                f"oci://{text} is not an image: write oci://REGISTRY/NAME:TAG or oci://REGISTRY/NAME@sha256:..."
            )
        return cls(match["host"], match["name"], match["tag"], match["digest"])

    def __str__(self) -> str:
        return f"oci://{self.host}/{self.name}" + (f":{self.tag}" if self.tag else "")


class Registry:
    """One repository of a registry. A loopback host, and one of `insecure_hosts`, is contacted without TLS."""

    def __init__(
        self, reference: Reference, environ: Mapping[str, str], web_of: Callable[[Trust], Web], insecure: Iterable[str]
    ) -> None:
        host = reference.host
        plain = _LOOPBACK.fullmatch(host) or host in insecure or host.partition(":")[0] in insecure
        base = f"{'http' if plain else 'https'}://{host}"
        self.reference = reference
        self._web = web_of(Trust.of(insecure, [base]))
        self._base = f"{base}/v2/{reference.name}"
        self._basic = _credentials(environ, host)
        self._authorization: str | None = None

    def manifest(self) -> tuple[dict[str, Any], str]:
        """-> the image's manifest and its digest. Raises Unreachable, Unverified and Unusable."""
        wanted = self.reference.digest or self.reference.tag or ""
        content = self._content(f"{self._base}/manifests/{wanted}")
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if self.reference.digest not in (None, digest):
            raise Unverified(f"{self.reference} answers {digest} instead of {self.reference.digest}")
        manifest = json.loads(content)
        if not isinstance(manifest, dict) or not manifest.get("layers"):
            raise Unusable(f"{self.reference} is not an image with layers (multi-platform indexes are not supported)")
        return manifest, digest

    def layer(self, layer: Mapping[str, Any], folder: Path) -> Path:
        """The verified layer in `folder`. Raises Unreachable, Unusable and OSError."""
        kind, _, value = str(layer.get("digest")).partition(":")
        if kind != "sha256" or not re.fullmatch(r"[0-9a-f]{64}", value):
            raise Unusable(f"{self.reference} has a layer with the digest {layer.get('digest')!r}")
        headers = {"Authorization": self._authorization} if self._authorization else {}
        address, path = f"{self._base}/blobs/sha256:{value}", folder / f"{value}.tar"
        if path.exists():
            return path
        name = str((layer.get("annotations") or {}).get("org.opencontainers.image.title", value[:12]))
        return self._web.fetch(Remote(address, name, int(layer["size"]), Digest(kind, value), headers), path)

    def exists(self) -> bool:
        try:
            self._content(f"{self._base}/manifests/{self.reference.tag}")
        except Denied as denied:
            if denied.status == 404:
                return False
            raise
        return True

    def push_blob(self, content: bytes) -> dict[str, Any]:
        """-> its descriptor, without a media type. An existing layer is not sent again."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if not self._has(digest):
            _, headers = self._ask(f"{self._base}/blobs/uploads/", "POST", b"")
            place = urljoin(self._base, headers.get("Location") or headers.get("location") or "")
            separator = "&" if "?" in place else "?"
            self._ask(f"{place}{separator}{urlencode({'digest': digest})}", "PUT", content, "application/octet-stream")
        return {"digest": digest, "size": len(content)}

    def push_manifest(self, manifest: Mapping[str, Any]) -> str:
        """-> its digest."""
        content = json.dumps(manifest, separators=(",", ":")).encode()
        self._ask(f"{self._base}/manifests/{self.reference.tag}", "PUT", content, MANIFEST_TYPE)
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def _has(self, digest: str) -> bool:
        try:
            self._ask(f"{self._base}/blobs/{digest}", "HEAD")
        except Denied as denied:
            if denied.status == 404:
                return False
            raise
        return True

    def _content(self, address: str) -> bytes:
        return self._ask(address)[0]

    def _ask(
        self, address: str, method: str = "GET", content: bytes | None = None, kind: str = ""
    ) -> tuple[bytes, Mapping[str, str]]:
        """-> body and headers of the response; sends a token if the registry asks for one."""
        try:
            return self._once(address, method, content, kind)
        except Denied as denied:
            if denied.status != 401 or self._authorization:
                raise (
                    Unreachable(f"{denied}: log in with docker login {self.reference.host}")
                    if denied.status
                    in (
                        401,
                        403,
                    )
                    else denied
                ) from None
            self._authorization = self._token(denied.headers)
        return self._ask(address, method, content, kind)

    def _once(self, address: str, method: str, content: bytes | None, kind: str) -> tuple[bytes, Mapping[str, str]]:
        headers = {"Accept": MANIFEST_TYPE, "User-Agent": "repvgg"}
        if kind:
            headers["Content-Type"] = kind
        if self._authorization:
            headers["Authorization"] = self._authorization

        def attempt() -> tuple[bytes, Mapping[str, str]]:
            try:
                with self._web.open(address, headers, method, content) as response:
                    return response.read(MAX_MANIFEST_BYTES), dict(response.headers)
            except OSError as error:
                raise Again(str(error.strerror or error)) from error

        return retrying(attempt, f"{self.reference}", self._web.pauses_s)

    def _token(self, headers: Mapping[str, str]) -> str:
        """An Authorization header, as the registry's challenge asks for it."""
        lower = {name.lower(): value for name, value in headers.items()}
        challenge = lower.get("www-authenticate", "")
        if challenge.lower().startswith("basic") and self._basic:
            return self._basic
        given = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        if not challenge.lower().startswith("bearer") or "realm" not in given:
            raise Unreachable(f"{self.reference} needs a login: docker login {self.reference.host}")
        query = urlencode({key: given[key] for key in ("service", "scope") if key in given})
        asked = {"Authorization": self._basic} if self._basic else {}
        with self._web.open(f"{given['realm']}?{query}", asked) as response:
            answer = json.loads(response.read(MAX_MANIFEST_BYTES))
        return f"Bearer {answer.get('token') or answer.get('access_token')}"


def _credentials(environ: Mapping[str, str], host: str) -> str | None:
    """The login from `docker login` or `podman login`, as a Basic header."""
    folder = environ.get("DOCKER_CONFIG")
    path = Path(environ.get("REGISTRY_AUTH_FILE") or (f"{folder}/config.json" if folder else "~/.docker/config.json"))
    try:
        auth = json.loads(path.expanduser().read_bytes())["auths"][host]["auth"]
        base64.b64decode(auth, validate=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return f"Basic {auth}"
