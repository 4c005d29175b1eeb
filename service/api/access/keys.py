"""Optional API keys.

1. with keys configured, every path except health, metrics and the page's files needs one, unknown paths included;
2. the given key is compared with all keys in constant time.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import page
from service.api.problems import RequestError
from service.api.requests import is_quiet


class KeyMiddleware:
    """Raises RequestError `unauthorized`, which RequestMiddleware turns into an answer."""

    def __init__(self, app: ASGIApp, keys: Sequence[SecretStr], vertex_health_route: str = "") -> None:
        self._app = app
        self._vertex_health_route = vertex_health_route
        self._keys = [key.get_secret_value().encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._keys and scope["type"] == "http" and not self._is_open(scope):
            self._check(Headers(scope=scope))
        await self._app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        """Only for GET and HEAD: Vertex AI may use one path for its health checks and for its instances."""
        path = scope["path"]
        return scope["method"] in ("GET", "HEAD") and (page.is_open(path) or is_quiet(path, self._vertex_health_route))

    def _check(self, headers: Headers) -> None:
        given = _given_key(headers)
        # All keys are compared before any result is used, so that the time taken reveals nothing.
        matches = [hmac.compare_digest(given, key) for key in self._keys]
        if not any(matches):
            raise RequestError(
                "unauthorized",
                "this key is not known" if given else "send a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
                headers={"WWW-Authenticate": 'Bearer realm="repvgg"'},
            )


def _given_key(headers: Headers) -> bytes:
    """Empty if there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return key.encode("latin-1")
