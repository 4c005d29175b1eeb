from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

from service.runtime.http.turns import Turns

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def begin(turns: Turns, begun: list[int], number: int) -> None:
    await turns.take()
    begun.append(number)


def test_one_begins_in_each_turn_in_order_of_arrival_and_an_idle_loop_lets_it_begin_at_once(run: Run) -> None:
    async def scenario() -> None:
        turns, begun = Turns(), list[int]()
        tasks = [asyncio.create_task(begin(turns, begun, number)) for number in range(5)]
        counts = []
        for _ in range(20):
            await asyncio.sleep(0)
            counts.append(len(begun))
        assert all(after - before <= 1 for before, after in pairwise(counts))
        assert (counts[0], begun) == (1, [0, 1, 2, 3, 4])
        await asyncio.gather(*tasks)
        await begin(turns, begun, 5)
        assert begun[-1] == 5

    run(scenario())


def test_one_that_is_cancelled_leaves_its_turn_to_the_next(run: Run) -> None:
    async def scenario() -> None:
        turns, begun = Turns(), list[int]()
        tasks = [asyncio.create_task(begin(turns, begun, number)) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks, timeout=5)
        assert (begun, tasks[1].cancelled()) == ([0, 2], True)

    run(scenario())
