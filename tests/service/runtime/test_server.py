"""What we use of uvicorn's insides, which its version range in pyproject.toml promises."""

from __future__ import annotations

import inspect

import uvicorn
from uvicorn.server import ServerState

from service.runtime.server import DrainingServer


def test_uvicorn_s_server_has_the_methods_that_ours_replaces() -> None:
    replaced = [name for name in vars(DrainingServer) if callable(vars(DrainingServer)[name]) and name[0] != "_"]
    assert set(replaced) == {"capture_signals", "startup", "shutdown", "on_tick"}
    for name in replaced:
        ours, theirs = (inspect.signature(getattr(cls, name)) for cls in (DrainingServer, uvicorn.Server))
        assert ours.parameters.keys() == theirs.parameters.keys()


def test_it_shares_connections_tasks_and_headers_with_our_connections() -> None:
    state = ServerState()
    assert (state.connections, state.tasks, state.default_headers) == (set(), set(), [])


def test_it_opens_no_socket_of_its_own_if_it_is_given_none() -> None:
    source = inspect.getsource(uvicorn.Server.startup)
    assert "for sock in sockets" in source, "startup([]) makes no server"
