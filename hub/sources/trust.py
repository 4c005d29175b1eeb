"""Which hosts may be contacted for a file.

1. only https, except for a host that the user named;
2. no private, loopback or link-local address, except that of a host that the user named, whatever its name resolves to;
3. a redirect follows the same rules, and takes no token to another origin.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from hub.errors import Unreachable

_PORTS = {"http": 80, "https": 443}
# IPv6 addresses that lead to the IPv4 address in them: RFC 6052 (NAT64), RFC 3056 (6to4).
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def port_of(url: SplitResult) -> int:
    return url.port or _PORTS.get(url.scheme, 0)


def origin(address: str) -> tuple[str, str, int]:
    url = urlsplit(address)
    return url.scheme, url.hostname or "", port_of(url)


def without_secrets(address: str) -> str:
    """An address that is safe to show: no user, no password, no query (signed addresses carry their key there)."""
    url = urlsplit(address)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"


@dataclass(frozen=True)
class Trust:
    """`named`: hosts (`HOST` or `HOST:PORT`) that the user named; http and private addresses are allowed there."""

    named: frozenset[str] = frozenset()

    @classmethod
    def of(cls, hosts: Iterable[str], addresses: Iterable[str] = ()) -> Trust:
        """`hosts` are trusted on every port, `addresses` (URLs) only on their own."""
        ports = (f"{host}:{port}" for _, host, port in map(origin, addresses))
        return cls(frozenset((*(host.strip().lower().strip("[]") for host in hosts if host.strip()), *ports)))

    def names(self, host: str, port: int) -> bool:
        return host in self.named or f"{host}:{port}" in self.named

    def check(self, address: str) -> None:
        """Raises Unreachable for an address that must not be contacted."""
        url = urlsplit(address)
        host, shown = url.hostname or "", without_secrets(address)
        if url.scheme not in _PORTS or not host:
            raise Unreachable(f"{shown} is neither https nor http: it was not contacted")
        if self.names(host, port_of(url)):
            return
        if url.scheme != "https":
            raise Unreachable(f"{shown} is not https; --insecure-hosts {host} allows it")
        if _is_private_literal(host):
            raise Unreachable(f"{shown} is a private address; --insecure-hosts {host} allows it")

    def resolve(self, host: str, port: int) -> list[tuple[str, int]]:
        """The addresses of a host. Raises Unreachable if one of them is private, OSError if there are none.

        Callers must connect to the addresses returned here: a second look-up might give others.
        """
        found = [info[4][:2] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        addresses = [(str(address), int(number)) for address, number in found]
        if not self.names(host, port) and (private := [name for name, _ in addresses if is_private(name)]):
            raise Unreachable(f"{host} resolves to the private address {private[0]}; --insecure-hosts {host} allows it")
        return addresses

    def connect(self, address: tuple[str, int], timeout: float, source: object = None) -> socket.socket:
        """Like socket.create_connection, to checked addresses only."""
        failed: OSError = OSError(f"{address[0]} has no address")
        for candidate in self.resolve(*address):
            try:
                return socket.create_connection(candidate, timeout)
            except OSError as error:
                failed = error
        raise failed


def _is_private_literal(host: str) -> bool:
    try:
        return is_private(host)
    except ValueError:  # a name; its addresses are checked when it is connected to
        return False


def is_private(text: str) -> bool:
    """Whether an IP address is not public. Raises ValueError if it is not an IP address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_private(str(ipaddress.IPv4Address(address.packed[-4:])))
        inner = address.ipv4_mapped or address.sixtofour
        if inner:
            return is_private(str(inner))
    return not address.is_global or address.is_multicast
