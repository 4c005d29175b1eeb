from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest

from service.runtime.http import accepting
from service.runtime.http.accepting import Acceptor
from service.runtime.listener import listen


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"hi")  # type: ignore[attr-defined]
        transport.close()


def connect(port: int, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(count)]


async def greeted(connections: list[socket.socket]) -> list[bytes]:
    def read(connection: socket.socket) -> bytes:
        with connection:
            return connection.recv(2)

    return await asyncio.gather(*(asyncio.to_thread(read, connection) for connection in connections))


class Counting:
    """A listener that counts what is accepted before the event loop has its next turn, and may be out of files."""

    def __init__(self, listener: socket.socket, errors: list[int]) -> None:
        self._listener = listener
        self._errors = errors
        self.turns: dict[int, int] = {}
        self.turn = 0

    def accept(self) -> Any:
        if self._errors:
            raise OSError(self._errors.pop(), "out of them")
        accepted = self._listener.accept()
        self.turns[self.turn] = self.turns.get(self.turn, 0) + 1
        return accepted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)


@pytest.mark.parametrize("at_once", [1, 4, 64])
def test_a_turn_of_the_event_loop_accepts_several_connections(run: Callable[..., Any], at_once: int) -> None:
    async def accept() -> None:
        listener = Counting(listen("127.0.0.1", 0), [])
        connections = connect(listener.getsockname()[1], 20)
        acceptor = Acceptor(listener, Greeter, at_once)  # type: ignore[arg-type]
        while sum(listener.turns.values()) < 20:
            listener.turn += 1
            await asyncio.sleep(0)
        assert max(listener.turns.values()) == min(20, at_once)
        assert await greeted(connections) == [b"hi"] * 20
        acceptor.close()
        await acceptor.wait_closed()

    run(accept())


def test_without_files_it_pauses_and_goes_on(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "PAUSE_S", 0.01)

    async def accept() -> None:
        listener = Counting(listen("127.0.0.1", 0), [errno.EMFILE, errno.ENFILE])
        acceptor = Acceptor(listener, Greeter, 64)  # type: ignore[arg-type]
        assert await greeted(connect(listener.getsockname()[1], 3)) == [b"hi"] * 3
        acceptor.close()
        await acceptor.wait_closed()

    run(accept())


def test_once_closed_it_accepts_nothing(run: Callable[..., Any]) -> None:
    async def close() -> None:
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        acceptor = Acceptor(listener, Greeter, 64)
        acceptor.close()
        acceptor.close()
        await acceptor.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            connect(port, 1)

    run(close())
