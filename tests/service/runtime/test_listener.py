from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import pytest

from service.errors import AddressUnavailable
from service.runtime.listener import FOR_CONNECTIONS, listen, url_of


def test_port_0_picks_a_free_port() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert port > 0
        assert url_of(listener) == f"http://127.0.0.1:{port}"
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


def test_answers_are_not_delayed_by_40_ms() -> None:
    async def accepted_without_delay() -> int:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            done.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        async with await asyncio.start_server(accept, sock=listener):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            no_delay = await done
            writer.close()
            await writer.wait_closed()
        return no_delay

    assert asyncio.run(accepted_without_delay())


def test_a_name_is_resolved() -> None:
    with listen("localhost", 0) as listener:
        assert listener.getsockname()[1] > 0


def test_a_port_in_use_is_reported_with_a_solution() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(AddressUnavailable, match=f"127.0.0.1 port {port}: the port is in use; .* another --port"):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine_is_reported() -> None:
    # RFC 5737 keeps this address for documentation: no machine has it.
    with pytest.raises(AddressUnavailable, match="this machine does not have this address; --host"):
        listen("192.0.2.1", 0)


def test_an_unknown_host_is_reported() -> None:
    with pytest.raises(AddressUnavailable, match="unknown host"):
        listen("not a host", 0)


def test_a_connection_inherits_what_finds_vanished_clients() -> None:
    with closing(listen("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert [connection.getsockopt(level, option) for level, option, _ in FOR_CONNECTIONS] == [
                value for *_, value in FOR_CONNECTIONS
            ]
