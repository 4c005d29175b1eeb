"""Questions and answers between two processes in both directions over one socket, as one JSON object per line.

1. any number of questions can be open at once, in both directions, and answers may arrive in any order;
2. a ServiceError of the other side is raised here with the same class and text;
3. when the other side has gone, every open question fails with ChannelClosed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from service.errors import (
    Draining,
    FeedbackGiven,
    FeedbackRejected,
    ModelRejected,
    NotReady,
    ReloadRunning,
    ServiceError,
    UnknownRequest,
)

# Errors that keep their class across the channel; all others become a ServiceError.
ERRORS: dict[str, Callable[..., ServiceError]] = {
    error.__name__: error
    for error in (
        *(Draining, ModelRejected, NotReady, ReloadRunning),
        *(UnknownRequest, FeedbackRejected, FeedbackGiven),
    )
}
PIECE_BYTES = 1 << 16

log = logging.getLogger(__name__)

Answer = Callable[..., Awaitable[Any]]


class ChannelClosed(Exception):
    """The process on the other side has ended or is about to end."""


class Channel:
    """Works while a task runs `run`; cancelling that task closes it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._answers: dict[str, Answer] = {}
        self._numbers = itertools.count()
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()
        self._closed = False

    def answer(self, question: str, answer: Answer) -> None:
        """Register `answer`, which gets the fields of each such question as arguments; it may raise ServiceError."""
        self._answers[question] = answer

    async def ask(self, question: str, **fields: Any) -> Any:
        """The other side's answer. Raises the other side's ServiceError, or ChannelClosed."""
        if self._closed:
            raise ChannelClosed
        number = next(self._numbers)
        self._open[number] = answered = asyncio.get_running_loop().create_future()
        try:
            await self._send({"ask": question, "number": number, "fields": fields})
            return await answered
        finally:
            del self._open[number]

    async def run(self) -> None:
        """Receive messages until the other side closes its end."""
        try:
            async for message in self._messages():
                if "ask" in message:
                    task = asyncio.create_task(self._answer(message))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                else:
                    self._settle(message)
        finally:
            self._closed = True
            self._connection.close()
            for answered in self._open.values():
                if not answered.done():
                    answered.set_exception(ChannelClosed())

    async def _messages(self) -> AsyncIterator[dict[str, Any]]:
        loop, rest = asyncio.get_running_loop(), b""
        try:
            while piece := await loop.sock_recv(self._connection, PIECE_BYTES):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield json.loads(line)
        except ConnectionError:
            log.debug("the other side closed the connection in the middle of a message")

    async def _answer(self, message: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"number": message["number"]}
        try:
            reply["answer"] = await self._answers[message["ask"]](**message["fields"])
        except ServiceError as error:
            retry_after_s = getattr(error, "retry_after_s", None)
            arguments = [str(error)] if retry_after_s is None else [str(error), retry_after_s]
            reply |= {"error": type(error).__name__, "arguments": arguments}
        except Exception:
            log.exception("no answer to %s", message["ask"])
            reply |= {"error": "ServiceError", "arguments": ["internal error"]}
        try:
            await self._send(reply)
        except ChannelClosed:
            log.debug("the other side closed before the answer to %s", message["ask"])

    def _settle(self, message: dict[str, Any]) -> None:
        answered = self._open.get(message["number"])
        if answered is None or answered.done():  # the caller was cancelled
            return
        if "error" in message:
            answered.set_exception(ERRORS.get(message["error"], ServiceError)(*message["arguments"]))
        else:
            answered.set_result(message["answer"])

    async def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        async with self._writing:
            try:
                await asyncio.get_running_loop().sock_sendall(self._connection, line)
            except OSError as error:
                raise ChannelClosed from error
