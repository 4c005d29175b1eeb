"""https:// addresses: a weight file, an ONNX file, or a `.tar` of a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hub.errors import WrongRequest
from hub.sources.arrivals import Again, Digest, Remote, retrying
from hub.sources.trust import without_secrets
from hub.sources.web import Web
from models.store import sha256

TARS = (".tar", ".tar.gz", ".tgz")


def cache(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "repvgg" / "downloads"


def is_tar(name: str) -> bool:
    return name.lower().endswith(TARS)


def fetch(address: str, digest: str | None, environ: Mapping[str, str], web: Web) -> tuple[Path, str]:
    """-> the file, and its SHA-256. It stays in the cache under its request, so that a pull can resume later.

    Raises HubError.
    """
    name = unquote(Path(urlsplit(address).path).name)
    if not name or name.startswith(".") or "/" in name:
        raise WrongRequest(f"{without_secrets(address)} names no file")
    if digest and not (len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
        raise WrongRequest(f"--sha256 {digest!r} is not 64 hexadecimal digits")
    folder = cache(environ) / hashlib.sha256(f"{address} {digest}".encode()).hexdigest()[:32]
    path = folder / name
    expected = Digest("sha256", digest) if digest else None
    if digest is None or not path.exists() or sha256(path) != digest:
        path.unlink(missing_ok=True)  # without a digest, it may have changed
        web.fetch(Remote(address, name, size(address, web), expected), path)
    found = sha256(path)
    if digest is None:
        web.progress.say(f"  {name} has --sha256 {found}; pass it to be sure of the same file")
    return path, found


def size(address: str, web: Web) -> int | None:
    """As the server announces it, None if it does not. Raises Unreachable."""

    def ask() -> int | None:
        try:
            with web.open(address, {"User-Agent": "repvgg", "Accept-Encoding": "identity"}) as response:
                return response.length
        except OSError as error:
            raise Again(str(error.strerror or error)) from error

    return retrying(ask, without_secrets(address), web.pauses_s)
