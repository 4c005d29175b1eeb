"""The real client of a request that came through a proxy.

1. X-Forwarded-For is trusted only from the proxies in the settings; from anyone else it changes nothing;
2. it is read from its end, as far as it names such proxies: a client cannot put another address before its own;
3. anything that is not an address ends it: the last known proxy then counts as the client;
4. a refusal of one client does not affect others on the same connection of a proxy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import islice

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.conduct import Addresses, Conduct

FORWARDED_FOR = b"x-forwarded-for"
# No real network has a longer chain.
MOST_HOPS = 32

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class ProxyMiddleware:
    """Makes the real client the `client` of the scope; `proxied` in its state says that there was a proxy."""

    def __init__(self, app: ASGIApp, proxies: Sequence[Network]) -> None:
        self._app = app
        self._proxies = proxies
        self._addresses = Addresses()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if scope["type"] == "http" and client and self._is_proxy(read_address(client[0])):
            state, client = {**scope.get("state", {}), "proxied": True}, self._client(client, scope["headers"])
            conduct: Conduct | None = state.get("conduct")
            if conduct is not None:
                conduct.start_anew(self._addresses.get(client[0]))
            scope = {**scope, "client": client, "state": state}
        await self._app(scope, receive, send)

    def _is_proxy(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._proxies)

    def _client(self, peer: tuple[str, int], headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, int]:
        client = peer
        given = b",".join(value for name, value in headers if name == FORWARDED_FOR)
        for hop in islice(reversed(given.split(b",")), MOST_HOPS):
            address = read_address(hop.decode("latin-1"))
            if address is None:
                break
            client = (str(address), 0)
            if not self._is_proxy(address):
                break
        return client


def read_address(text: str) -> Address | None:
    """`10.0.0.1`, `10.0.0.1:80`, `::1`, `[::1]:80`, and an IPv4 address written as IPv6; None for anything else."""
    text = text.strip(" \t")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    return None if address.scope_id else address.ipv4_mapped or address
