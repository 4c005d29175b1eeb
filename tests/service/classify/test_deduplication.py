from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from service.classify.deduplication import SAMPLED_BYTES, Content, Deduplicator

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Work:
    """Computations that end when told, counted."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.may_end = asyncio.Event()
        self.result: int | Exception = 7

    async def __call__(self) -> int:
        self.begun += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


async def ticks() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_callers_with_an_equal_key_share_one_computation(run: Run) -> None:
    async def scenario() -> None:
        deduplicator, work = Deduplicator[int](0, lambda _: 1), Work()
        tasks = [asyncio.create_task(deduplicator.get(key, work)) for key in (b"a", b"a", b"b")]
        await ticks()
        work.may_end.set()
        assert await asyncio.gather(*tasks) == [(7, "miss"), (7, "collapsed"), (7, "miss")]
        assert work.begun == 2
        assert await deduplicator.get(b"a", work) == (7, "miss")

    run(scenario())


def test_if_the_computing_caller_leaves_another_one_computes(run: Run) -> None:
    async def scenario() -> None:
        deduplicator, work = Deduplicator[int](0, lambda _: 1), Work()
        first, second, third = (asyncio.create_task(deduplicator.get(b"a", work)) for _ in range(3))
        await ticks()
        first.cancel()
        await ticks()
        assert (first.cancelled(), work.begun, work.cancelled) == (True, 2, 1)
        work.may_end.set()
        assert await asyncio.gather(second, third) == [(7, "miss"), (7, "collapsed")]
        assert work.begun == 2

    run(scenario())


def test_a_waiting_caller_that_leaves_changes_nothing(run: Run) -> None:
    async def scenario() -> None:
        deduplicator, work = Deduplicator[int](0, lambda _: 1), Work()
        first, second = (asyncio.create_task(deduplicator.get(b"a", work)) for _ in range(2))
        await ticks()
        second.cancel()
        await ticks()
        assert (second.cancelled(), work.cancelled) == (True, 0)
        work.may_end.set()
        assert await first == (7, "miss")

    run(scenario())


def test_only_the_computing_caller_gets_the_error_and_it_is_not_kept(run: Run) -> None:
    async def scenario() -> None:
        deduplicator, work = Deduplicator[int](100, lambda _: 1), Work()
        work.result = OSError("no luck")
        tasks = [asyncio.create_task(deduplicator.get(b"a", work)) for _ in range(2)]
        await ticks()
        work.may_end.set()
        assert [type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == [OSError, OSError]
        assert work.begun == 2
        work.result = 8
        assert await deduplicator.get(b"a", work) == (8, "miss")
        assert await deduplicator.get(b"a", work) == (8, "hit")

    run(scenario())


@pytest.mark.parametrize(
    ("size", "keys", "asked", "source"),
    [
        *[(1, "abc", "a", "miss"), (1, "abc", "b", "hit"), (1, "abc", "c", "hit")],
        *[(1, "abac", "a", "hit"), (1, "abac", "b", "miss")],
        *[(2, "ab", "a", "miss"), (2, "ab", "b", "hit"), (3, "a", "a", "miss"), (0, "a", "a", "miss")],
    ],
)
def test_kept_results_fit_into_the_memory_and_the_least_recently_used_is_dropped_first(
    run: Run, size: int, keys: str, asked: str, source: str
) -> None:
    async def scenario() -> None:
        deduplicator, work = Deduplicator[int](2, lambda _: size), Work()
        work.may_end.set()
        for key in keys:
            await deduplicator.get(key.encode(), work)
        assert await deduplicator.get(asked.encode(), work) == (7, source)

    run(scenario())


@pytest.mark.parametrize("size", [0, 1, SAMPLED_BYTES, 100_000])
def test_contents_are_equal_only_if_all_their_bytes_are(size: int) -> None:
    content = bytes(size)
    assert Content(content) == Content(bytes(size))
    assert hash(Content(content)) == hash(Content(bytes(size)))
    assert Content(content) != content
    changed = [
        content[:place] + b"x" + content[place + 1 :] for place in {0, 1, size // 2, size - 1} if 0 <= place < size
    ]
    assert all(Content(content) != Content(other) for other in [*changed, content + b"x"])
