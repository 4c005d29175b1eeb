"""Who may change something: reload the model, or give feedback.

1. with API keys configured, anyone who has one (`keys` checks it);
2. without, only a caller on this machine: connected from a loopback address, not through a proxy, and with an address
   or `localhost` as the Host, which a DNS-rebinding page cannot have;
3. never a page of another origin.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request

from service.api.access.proxies import read_address
from service.api.problems import RequestError

# Headers of proxies on this machine that the settings do not name.
_OF_PROXIES = frozenset({"forwarded", "via", "x-real-ip"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_reload(request: Request, *, has_keys: bool) -> None:
    """Raises RequestError `forbidden`."""
    _check(request, has_keys, "reload the model", ", or SIGHUP to the process")


def check_feedback(request: Request, *, has_keys: bool) -> None:
    """Raises RequestError `forbidden`."""
    _check(request, has_keys, "give feedback")


def _check(request: Request, has_keys: bool, what: str, other_way: str = "") -> None:
    if _is_of_another_origin(request.headers):
        raise RequestError("forbidden", f"a page of another origin must not {what}")
    if not has_keys and not _is_local(request):
        raise RequestError(
            "forbidden",
            f"without API keys, only a caller on this machine may {what}: send the request to its loopback "
            f"address{other_way}, or configure keys",
        )


def _is_of_another_origin(headers: Headers) -> bool:
    """Browsers state the origin of a request, and no script can change it."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    return any(not _is_at(origin, headers.get("host", "")) for origin in headers.getlist("origin"))


def _is_at(origin: str, host: str) -> bool:
    try:
        page, server = urlsplit(origin), urlsplit(f"//{host}")
        port = _DEFAULT_PORTS.get(page.scheme)
        return bool(page.hostname) and (page.hostname, page.port or port) == (server.hostname, server.port or port)
    except ValueError:
        return False


def _is_local(request: Request) -> bool:
    if request.client is None or "proxied" in request.scope.get("state", {}):
        return False
    if any(name in _OF_PROXIES or name.startswith("x-forwarded") for name in request.headers):
        return False
    peer = read_address(request.client.host)
    return peer is not None and peer.is_loopback and _cannot_be_rebound(request.headers.get("host", ""))


def _cannot_be_rebound(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or read_address(name) is not None
