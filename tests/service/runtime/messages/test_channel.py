from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.errors import Draining, EngineFailed, ModelRejected, ServiceError
from service.runtime.messages.channel import Channel, ChannelClosed

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[Channel, Channel, asyncio.Task[None]]]:
    """Two channels that are connected, and the task of the second one."""
    one, other = map(Channel, socket.socketpair())
    tasks = [asyncio.create_task(channel.run()) for channel in (one, other)]
    yield one, other, tasks[1]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def echo(text: str) -> str:
    return text


def test_both_ends_ask_and_answer(run: Run) -> None:
    async def scenario() -> None:
        async with two_ends() as (one, other, _):
            one.answer("echo", echo)
            other.answer("echo", echo)
            long = "x" * 1_000_000  # many pieces
            answers = await asyncio.gather(
                one.ask("echo", text="ä\n"), other.ask("echo", text=long), one.ask("echo", text=long)
            )
            assert answers == ["ä\n", long, long]

    run(scenario())


def test_answers_come_in_any_order(run: Run) -> None:
    async def scenario() -> None:
        async with two_ends() as (one, other, _):
            may_answer = asyncio.Event()

            async def late() -> str:
                await may_answer.wait()
                return "late"

            other.answer("late", late)
            other.answer("echo", echo)
            waiting = asyncio.create_task(one.ask("late"))
            assert await one.ask("echo", text="soon") == "soon"
            may_answer.set()
            assert await waiting == "late"

    run(scenario())


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (ModelRejected("no good"), ModelRejected, "no good"),
        (Draining("ends", 2.5), Draining, "ends"),
        (EngineFailed("no class of its own here"), ServiceError, "no class of its own here"),
        (KeyError("secret"), ServiceError, "internal error"),
    ],
)
def test_an_error_of_the_other_side_is_raised_here(
    run: Run, raised: Exception, kind: type[ServiceError], text: str
) -> None:
    async def scenario() -> None:
        async with two_ends() as (one, other, _):

            async def fail() -> None:
                raise raised

            other.answer("fail", fail)
            with pytest.raises(ServiceError) as error:
                await one.ask("fail")
            assert (type(error.value), str(error.value)) == (kind, text)
            assert getattr(error.value, "retry_after_s", 2.5) == 2.5

    run(scenario())


def test_every_question_fails_when_the_other_side_has_gone(run: Run) -> None:
    async def scenario() -> None:
        async with two_ends() as (one, other, task_of_other):

            async def never() -> None:
                await asyncio.Event().wait()

            other.answer("never", never)
            waiting = asyncio.create_task(one.ask("never"))
            await asyncio.sleep(0.01)
            task_of_other.cancel()
            for question in (waiting, one.ask("never")):
                with pytest.raises(ChannelClosed):
                    await question

    run(scenario())


def test_a_cancelled_question_does_not_disturb_others(run: Run) -> None:
    async def scenario() -> None:
        async with two_ends() as (one, other, _):
            may_answer = asyncio.Event()
            other.answer("late", may_answer.wait)
            other.answer("echo", echo)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(one.ask("late"), 0.01)
            may_answer.set()
            assert await one.ask("echo", text="still here") == "still here"

    run(scenario())
