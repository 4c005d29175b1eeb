"""Whatever happens, every caller is answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.classify.batching import Inferred
from service.errors import DeadlineExceeded, Draining, EngineFailed
from tests.service.classify.batching_world import (
    EXITS,
    GOOD,
    MAX_BATCH,
    NAN,
    POISON,
    Image,
    Run,
    World,
    outcomes,
    picture,
)

ACTIONS = st.one_of(
    st.tuples(
        st.just("submit"),
        st.sampled_from([GOOD, GOOD, GOOD, POISON, NAN, EXITS]),
        st.sampled_from([None, None, 1.0, 3.0, 1000.0]),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("tick")),
    st.tuples(st.just("pass"), st.sampled_from([0.5, 2.0])),
    st.tuples(st.just("learn"), st.integers(1, MAX_BATCH), st.sampled_from([0.1, 2.0])),
    st.tuples(st.just("open the gate")),
    st.tuples(st.just("shut the gate")),
    st.tuples(st.just("wait for all")),
    st.tuples(st.just("close"), st.sampled_from([0.0, 0.001])),
)


@dataclass
class Caller:
    task: asyncio.Task[Inferred]
    image: Image
    kind: float
    has_deadline: bool
    was_cancelled: bool = False


@dataclass
class Schedule:
    world: World
    callers: list[Caller] = field(default_factory=list)
    closed: bool = False

    async def act(self, name: str, *arguments: Any) -> None:
        world = self.world
        if name == "submit":
            kind, patience_s = arguments
            image = picture(len(self.callers), kind)
            deadline = None if patience_s is None else world.clock.now + patience_s
            self.callers.append(Caller(world.submit(image, deadline), image, kind, deadline is not None))
        elif name == "cancel" and arguments[0] < len(self.callers):
            caller = self.callers[arguments[0]]
            caller.was_cancelled = caller.task.cancel() or caller.was_cancelled
        elif name == "tick":
            await asyncio.sleep(0)
        elif name == "pass":
            world.clock.now += arguments[0]
        elif name == "learn":
            world.batcher.speed.learn(*arguments)
        elif name == "open the gate":
            world.gate.set()
        elif name == "shut the gate":
            world.gate.clear()
        elif name == "wait for all" and self.callers:
            world.gate.set()
            await asyncio.wait([caller.task for caller in self.callers])
        elif name == "close":
            self.closed = True
            await world.batcher.close(*arguments)

    def check(self, caller: Caller, outcome: Inferred | BaseException) -> None:
        """Each image has its own answer, or an error whose reason is this image or concerns all of them."""
        if isinstance(outcome, Inferred):
            assert caller.kind == GOOD
            assert self.world.is_right(outcome, caller.image)
            assert 1 <= outcome.batch_size <= MAX_BATCH
        elif isinstance(outcome, asyncio.CancelledError):
            assert caller.was_cancelled
        elif isinstance(outcome, EngineFailed):
            assert caller.kind != GOOD
        elif isinstance(outcome, DeadlineExceeded):
            assert caller.has_deadline
        else:
            assert isinstance(outcome, Draining)
            assert self.closed


@settings(max_examples=150, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=40), slots=st.integers(1, 2))
def test_whatever_happens_every_caller_is_answered(actions: list[tuple[Any, ...]], slots: int, run: Run) -> None:
    async def scenario() -> None:
        world = World(slots=slots)
        schedule = Schedule(world)
        for action in actions:
            await schedule.act(*action)
        world.gate.set()
        results = await outcomes(*(caller.task for caller in schedule.callers))
        for caller, outcome in zip(schedule.callers, results, strict=True):
            schedule.check(caller, outcome)
        if not schedule.closed:
            image = picture(1000)
            assert world.is_right(await world.batcher.submit(image), image)
        await world.batcher.close(30.0)
        assert world.batcher.queue_depth == 0
        assert world.batcher.idle
        assert max(world.batch_sizes, default=0) <= MAX_BATCH

    run(scenario())
