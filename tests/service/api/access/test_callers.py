"""Over a socket: tests/e2e/test_access.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from starlette.requests import Request

from service.api.access.callers import check_reload
from service.api.problems import RequestError

if TYPE_CHECKING:
    from starlette.testclient import TestClient

LOCAL = ("127.0.0.1", "localhost:8000")
KEY = {"X-API-Key": "k"}


def may_reload(client: str, host: str, *, has_keys: bool = False, proxied: bool = False, **headers: str) -> bool:
    named = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "client": (client, 5000),
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "state": {"proxied": True} if proxied else {},
    }
    try:
        check_reload(Request(scope), has_keys=has_keys)
    except RequestError:
        return False
    return True


@pytest.mark.parametrize("client", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1:8000", "[::1]:80", "a.localhost"]
)
def test_a_caller_on_this_machine_may(client: str, host: str) -> None:
    assert may_reload(client, host)


@pytest.mark.parametrize(
    "client", ["10.0.0.1", "192.168.1.7", "2001:db8::1", "::ffff:10.0.0.1", "0.0.0.0", "testclient"]
)
def test_others_may_only_with_a_key(client: str) -> None:
    assert not may_reload(client, "localhost")
    assert may_reload(client, "repvgg.example.com", has_keys=True)


@pytest.mark.parametrize("host", ["evil.example.com", "localhost.evil.example.com", "", "127.0.0.1.nip.io", "[", "x@y"])
def test_a_page_that_rebinds_its_name_to_this_machine_may_not(host: str) -> None:
    assert not may_reload("127.0.0.1", host)
    assert not may_reload("127.0.0.1", host, origin=f"http://{host}", sec_fetch_site="same-origin")


@pytest.mark.parametrize(
    "headers",
    [{"x_forwarded_for": "127.0.0.1"}, {"x_forwarded_proto": "https"}, {"forwarded": "for=x"}, {"via": "1.1 x"}],
)
def test_a_request_through_a_proxy_is_not_local(headers: dict[str, str]) -> None:
    assert not may_reload(*LOCAL, **headers)
    assert not may_reload(*LOCAL, proxied=True)
    assert may_reload(*LOCAL, has_keys=True, **headers)


@pytest.mark.parametrize("has_keys", [False, True])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example.com"},
        {"origin": "http://localhost:3000"},
        {"origin": "https://localhost:8000", "sec_fetch_site": "cross-site"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://localhost:99999999"},
        {"origin": "http://["},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_a_page_of_another_origin_may_not(headers: dict[str, str], has_keys: bool) -> None:
    assert not may_reload(*LOCAL, has_keys=has_keys, **headers)


def test_our_own_page_may() -> None:
    assert may_reload(*LOCAL, origin="http://localhost:8000", sec_fetch_site="same-origin")
    assert may_reload("127.0.0.1", "localhost", origin="http://localhost:80")


def test_a_refusal_says_what_to_do_and_with_keys_a_key_is_asked_for(serve: Callable[..., TestClient]) -> None:
    open_to_all = serve()
    reply = open_to_all.post("/models/reload", headers={"Host": "repvgg.example.com"})
    assert (reply.status_code, reply.json()["code"]) == (403, "forbidden")
    assert "SIGHUP" in reply.json()["detail"]
