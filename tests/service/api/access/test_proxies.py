from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from service.api.access.proxies import ProxyMiddleware, read_address
from service.api.conduct import Conduct

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.0.2.7")]


@pytest.fixture
def client_of(run: Callable[..., Any]) -> Callable[..., str]:
    """`client_of(peer, *values of X-Forwarded-For)` -> whom the application sees."""

    def ask(peer: str, *values: str) -> str:
        seen: list[str] = []

        async def app(scope: Scope, _: Receive, __: Send) -> None:
            seen.append(scope["client"][0])

        headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in values]
        scope = {"type": "http", "client": (peer, 5000), "headers": headers}
        run(ProxyMiddleware(app, PROXIES)(scope, None, None))  # type: ignore[arg-type]
        return seen[0]

    return ask


@pytest.mark.parametrize("peer", ["203.0.113.9", "127.0.0.1", "::1", "11.0.0.1"])
def test_nobody_but_a_configured_proxy_is_believed(client_of: Callable[..., str], peer: str) -> None:
    assert client_of(peer, "198.51.100.1") == peer


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1:4711"], "198.51.100.1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["::ffff:198.51.100.1"], "198.51.100.1"),
        (["1.1.1.1, 198.51.100.1"], "198.51.100.1"),  # the client itself has put one before
        (["1.1.1.1, 198.51.100.1, 10.0.0.3, fd00::4"], "198.51.100.1"),
        (["1.1.1.1", "198.51.100.1", "192.0.2.7"], "198.51.100.1"),
        ([], "10.0.0.2"),
        ([""], "10.0.0.2"),
        (["unknown"], "10.0.0.2"),
        (["198.51.100.1, _hidden, 10.0.0.3"], "10.0.0.3"),
        (["fe80::1%eth0\u009b"], "10.0.0.2"),
        (["10.0.0.9"], "10.0.0.9"),
    ],
)
def test_the_client_is_the_last_one_that_is_no_proxy(
    client_of: Callable[..., str], values: list[str], client: str
) -> None:
    assert client_of("10.0.0.2", *values) == client
    assert client_of("::ffff:10.0.0.2", *values) in (client, "::ffff:10.0.0.2")


def test_a_chain_without_end_is_not_followed(client_of: Callable[..., str]) -> None:
    assert client_of("10.0.0.2", "1.1.1.1," + ",".join(["10.0.0.3"] * 5000)) == "10.0.0.3"


@given(text=st.text(max_size=60))
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = read_address(text)
    assert address is None or str(address).isascii()


@pytest.mark.parametrize(("peer", "is_held"), [("10.0.0.2", False), ("203.0.113.9", True)])
def test_a_refusal_counts_against_a_connection_unless_a_proxy_shares_it(
    run: Callable[..., Any], peer: str, is_held: bool
) -> None:
    held: list[float] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        conduct: Conduct = scope["state"]["conduct"]
        conduct.ask(time.monotonic())
        held.append(conduct.hold_s)
        conduct.refuse(1.0)

    async def scenario() -> None:
        conduct, proxy = Conduct(), ProxyMiddleware(app, PROXIES)
        for client in (b"198.51.100.1", b"198.51.100.2"):
            headers = [(b"x-forwarded-for", client)]
            scope = {"type": "http", "client": (peer, 5000), "headers": headers, "state": {"conduct": conduct}}
            await proxy(scope, None, None)  # type: ignore[arg-type]

    run(scenario())
    assert held[0] == 0
    assert (held[1] > 0) == is_held
