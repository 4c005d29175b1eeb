from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.registry import Collector

from service.observe.scrapes import BURST_S, MOST_AGE_S, Scrapes, _encoder

Run = Callable[[Coroutine[Any, Any, Any]], Any]
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class World:
    """A gauge that counts how often it was built, and in which threads. Each takes `cost_s` of a clock of its own."""

    def __init__(self, cost_s: float) -> None:
        self.now = self.cost_s = cost_s
        self.threads: list[threading.Thread] = []
        registry = CollectorRegistry()
        Gauge("built", "How often", registry=registry).set_function(self._build)
        self.registry: Collector = registry
        self.scrapes = Scrapes(self.collector, clock=lambda: self.now)

    async def collector(self) -> Collector:
        return self.registry

    def _build(self) -> float:
        self.now += self.cost_s
        self.threads.append(threading.current_thread())
        return len(self.threads)

    @property
    def built(self) -> int:
        return len(self.threads)


def test_the_text_is_built_in_a_thread_and_once_for_scrapers_that_ask_together(run: Run) -> None:
    async def scenario() -> None:
        world = World(0.01)
        texts = {scrape.text for scrape in await asyncio.gather(*(world.scrapes.get("") for _ in range(50)))}
        assert len(texts) == world.built == 1
        assert threading.main_thread() not in world.threads

    run(scenario())


def test_a_scraper_that_leaves_does_not_cost_others_theirs(run: Run) -> None:
    async def scenario() -> None:
        world = World(0.01)
        leaving, staying = (asyncio.create_task(world.scrapes.get("")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert b"built 1.0" in (await staying).text

    run(scenario())


def test_scrapes_are_fresh_until_they_take_too_much_of_the_time(run: Run) -> None:
    async def scenario() -> None:
        world = World(0.02)
        for count in range(int(BURST_S / 0.02)):
            assert f"built {count + 1}.0".encode() in (await world.scrapes.get("")).text
        for _ in range(1000):
            await world.scrapes.get("")
        before = world.built
        assert before < 20
        world.now += MOST_AGE_S
        await world.scrapes.get("")
        assert world.built == before + 1

    run(scenario())


def test_no_other_version_makes_another_text(run: Run) -> None:
    async def scenario() -> None:
        world = World(BURST_S)
        types = set()
        for version in ("1.0.0", "1.0.1", "7.7.7", "99"):
            types.add((await world.scrapes.get(f"application/openmetrics-text; version={version}")).media_type)
        assert types == {OPEN_METRICS + "; charset=utf-8"}
        assert world.built <= 2

    run(scenario())


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=abc", "", "text/plain", "*/*", "x;version="])
def test_a_format_that_cannot_be_understood_is_answered_in_the_oldest_one(run: Run, accept: str) -> None:
    async def scenario() -> None:
        assert (await World(0.0).scrapes.get(accept)).media_type.startswith("text/plain; version=0.0.4")

    run(scenario())


PIECES = (
    "application/openmetrics-text",
    "text/plain",
    *";,=",
    "version=",
    "escaping=",
    "q=",
    "abc",
    "1.0.0",
    "9" * 5000,
    "-1",
)


@given(accept=st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join))
def test_any_header_is_answered_in_one_of_the_two_formats(accept: str) -> None:
    assert _encoder(accept)[1].startswith(("text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"))
