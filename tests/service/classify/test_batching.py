from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from service.classify.batching import Batcher, Inferred
from service.engines.runtimes.fake import FakeEngine
from service.errors import DeadlineExceeded, Draining, EngineFailed, NotReady
from service.observe.metrics import Metrics

SIZE, CLASSES, MAX_BATCH = 4, 5, 4
Run = Callable[[Coroutine[Any, Any, Any]], Any]
Image = NDArray[np.float32]

# The first pixel of an image says whether the engine can answer it.
GOOD, POISON, NAN, EXITS = 0.0, -1.0, -2.0, -3.0


def picture(seed: int, kind: float = GOOD) -> Image:
    image = np.random.default_rng(seed).random((3, SIZE, SIZE), dtype=np.float32)
    if kind != GOOD:
        image[0, 0, 0] = kind
    return image


_gates: list[threading.Event] = []


@pytest.fixture(autouse=True)
def _all_gates_open_at_the_end() -> Iterator[None]:
    """Otherwise a thread that waits for a gate would keep a failed test run from ending."""
    yield
    while _gates:
        _gates.pop().set()


class Clock:
    """Time passes only when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A batcher on a fake engine that waits for `gate` and fails on POISON; `batch_sizes` it was given."""

    slots: int = 1
    clock: Clock = field(default_factory=Clock)
    gate: threading.Event = field(default_factory=threading.Event)
    batch_sizes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        _gates.append(self.gate)
        self.registry = CollectorRegistry()
        self.engine = FakeEngine(CLASSES, SIZE, gate=self.gate, fail=self._fail, answer=self._answer)
        self.batcher = Batcher(
            self.engine,
            max_batch_size=MAX_BATCH,
            metrics=Metrics(self.registry),
            slots=self.slots,
            clock=self.clock,
        )

    def _fail(self, images: Image) -> None:
        self.batch_sizes.append(len(images))
        if (images[:, 0, 0, 0] == POISON).any():
            raise RuntimeError("poison")
        if (images[:, 0, 0, 0] == EXITS).any():
            raise SystemExit("an engine may raise anything")

    def _answer(self, images: Image) -> Image:
        logits = self.engine.logits(images)
        logits[images[:, 0, 0, 0] == NAN, 1] = np.nan
        return logits

    def submit(self, image: Image, deadline: float | None = None) -> asyncio.Task[Inferred]:
        return asyncio.create_task(self.batcher.submit(image, deadline))

    async def occupy_the_engine(self) -> asyncio.Task[Inferred]:
        """The engine is busy with one image until the gate opens."""
        task = self.submit(picture(999))
        await ticks()
        assert not self.batcher.idle
        return task

    def is_right(self, inferred: Inferred, image: Image) -> bool:
        return np.array_equal(inferred.logits, self.engine.logits(image[None])[0])

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


async def ticks() -> None:
    """Enough turns of the loop for everything that is ready to run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def outcomes(*tasks: asyncio.Task[Inferred]) -> list[Inferred | BaseException]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_an_idle_engine_never_waits(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        world.gate.set()
        image = picture(1)
        inferred = await world.batcher.submit(image)  # the clock stands still: nothing waited for it
        assert world.is_right(inferred, image)
        assert (inferred.batch_size, inferred.queue_s) == (1, 0.0)

    run(scenario())


def test_images_that_arrive_in_one_turn_of_the_loop_share_a_batch(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        world.gate.set()
        images = [picture(seed) for seed in range(3)]
        answers = await asyncio.gather(*(world.batcher.submit(image) for image in images))
        assert [answer.batch_size for answer in answers] == [3, 3, 3]
        assert all(map(world.is_right, answers, images))

    run(scenario())


def test_a_batch_is_what_arrived_while_the_engine_was_busy(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        first = await world.occupy_the_engine()
        images = [picture(seed) for seed in range(6)]
        tasks = []
        for image in images:
            tasks.append(world.submit(image))
            await ticks()
        world.clock.now += 0.5
        assert world.batcher.queue_depth == world.value("repvgg_queue_depth") == 6
        world.gate.set()
        answers = await asyncio.gather(*tasks)
        assert (await first).batch_size == 1
        assert world.batch_sizes == [1, MAX_BATCH, 2]
        assert [answer.queue_s for answer in answers] == [0.5] * 6
        assert all(map(world.is_right, answers, images))

    run(scenario())


def test_a_batch_is_built_only_when_a_slot_is_free_so_late_arrivals_still_get_in(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        tasks = [world.submit(picture(seed)) for seed in range(MAX_BATCH + 1)]
        await ticks()
        assert world.batcher.queue_depth == 1
        tasks.append(world.submit(picture(9)))
        await ticks()
        world.gate.set()
        assert [answer.batch_size for answer in await asyncio.gather(*tasks)] == [MAX_BATCH] * MAX_BATCH + [2, 2]

    run(scenario())


def test_each_slot_takes_a_batch(run: Run) -> None:
    async def scenario() -> None:
        world = World(slots=2)
        first = await world.occupy_the_engine()
        assert world.value("repvgg_engine_slots", state="idle") == 1
        second = await world.occupy_the_engine()
        third = world.submit(picture(1))
        await ticks()
        assert world.value("repvgg_engine_slots", state="busy") == 2
        assert world.batcher.queue_depth == 1
        world.gate.set()
        assert [answer.batch_size for answer in await asyncio.gather(first, second, third)] == [1, 1, 1]

    run(scenario())


def test_the_time_until_a_new_image_would_be_answered_is_known(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        world.batcher.speed.learn(1, 3.0)
        world.batcher.speed.learn_drained(1, 2.0)
        assert world.batcher.backlog_s == 0.0
        await world.occupy_the_engine()
        waiting = [world.submit(picture(seed)) for seed in range(6)]
        await ticks()
        world.clock.now += 1.0
        assert world.batcher.backlog_s == pytest.approx((3.0 - 1.0) + 6 * 2.0)
        world.clock.now += 7.0  # 5 s late: it is assumed to need as long again
        assert world.batcher.backlog_s == pytest.approx(5.0 + 6 * 2.0)
        assert world.batcher.longest_running_s == pytest.approx(8.0)
        world.gate.set()
        assert all(isinstance(outcome, Inferred) for outcome in await outcomes(*waiting))
        assert world.batcher.backlog_s == 0.0

    run(scenario())


def test_with_several_slots_running_batches_leave_the_engine_sooner(run: Run) -> None:
    async def scenario() -> None:
        world = World(slots=2)
        world.batcher.speed.learn(1, 3.0)
        first, second = await world.occupy_the_engine(), await world.occupy_the_engine()
        assert world.batcher.backlog_s == pytest.approx(3.0)
        world.gate.set()
        await outcomes(first, second)

    run(scenario())


def test_the_speed_of_the_queue_is_learned_while_images_wait_for_a_slot(run: Run) -> None:
    async def scenario() -> None:
        clock = Clock()

        def take_a_second(images: Image) -> None:
            clock.now += 1.0

        engine = FakeEngine(CLASSES, SIZE, fail=take_a_second)
        batcher = Batcher(engine, max_batch_size=2, metrics=Metrics(CollectorRegistry()), clock=clock)
        await batcher.submit(picture(0))
        assert batcher.speed.image_s == 0.5  # of the curve: nobody waited
        await asyncio.gather(*(batcher.submit(picture(seed)) for seed in range(5)))
        # Batches of 2, 2 and 1; images waited during the first two.
        assert batcher.speed.image_s == pytest.approx(2.0 / 3.0, rel=0.5)

    run(scenario())


def test_idle_slots_share_the_queue(run: Run) -> None:
    async def scenario() -> None:
        world = World(slots=2)
        world.gate.set()
        await asyncio.gather(*(world.batcher.submit(picture(seed)) for seed in range(3)))
        assert sorted(world.batch_sizes) == [1, 2]

    run(scenario())


def test_a_leaving_caller_never_hurts_its_batch_mates(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        images = [picture(seed) for seed in range(3)]
        tasks = [world.submit(image) for image in images]
        await ticks()
        assert not world.batcher.idle
        tasks[1].cancel()
        await ticks()
        world.gate.set()
        first, left, last = await outcomes(*tasks)
        assert isinstance(left, asyncio.CancelledError)
        assert isinstance(first, Inferred)
        assert isinstance(last, Inferred)
        assert world.is_right(first, images[0])
        assert world.is_right(last, images[2])

    run(scenario())


def test_a_caller_that_leaves_the_queue_costs_no_engine_time(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        first = await world.occupy_the_engine()
        stays, leaves = world.submit(picture(1)), world.submit(picture(2))
        await ticks()
        leaves.cancel()
        await ticks()
        assert world.batcher.queue_depth == 1
        world.gate.set()
        await outcomes(first, stays, leaves)
        assert world.batch_sizes == [1, 1]

    run(scenario())


def test_a_caller_that_leaves_just_before_the_pump_costs_no_engine_time(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        world.gate.set()
        task = world.submit(picture(1))
        await asyncio.sleep(0)  # it is in the queue, and the pump is due
        assert world.batcher.queue_depth == 1
        task.cancel()
        await outcomes(task)
        await world.batcher.close(30.0)
        assert world.batch_sizes == []

    run(scenario())


def test_a_passed_deadline_is_rejected_immediately(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        with pytest.raises(DeadlineExceeded):
            await world.batcher.submit(picture(1), deadline=world.clock.now)
        assert world.batch_sizes == []

    run(scenario())


def test_an_image_whose_deadline_passed_in_the_queue_is_dropped_before_the_engine(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        await world.occupy_the_engine()
        late, patient = world.submit(picture(1), world.clock.now + 1.0), world.submit(picture(2))
        await ticks()
        world.clock.now += 2.0
        world.gate.set()
        dropped, answered = await outcomes(late, patient)
        assert isinstance(dropped, DeadlineExceeded)
        assert isinstance(answered, Inferred)
        assert world.batch_sizes == [1, 1]

    run(scenario())


def test_an_image_that_cannot_meet_its_deadline_is_dropped_before_the_engine(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        world.gate.set()
        world.batcher.speed.learn(1, 2.0)
        with pytest.raises(DeadlineExceeded):
            await world.batcher.submit(picture(1), deadline=world.clock.now + 1.0)
        assert world.batch_sizes == []

    run(scenario())


def test_an_estimate_that_causes_rejections_is_measured_again_after_a_while(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        world.gate.set()
        world.batcher.speed.learn(1, 2.0)
        for _ in range(200):
            [outcome] = await outcomes(world.submit(picture(1), world.clock.now + 1.0))
            assert isinstance(outcome, DeadlineExceeded)
        assert world.batcher.speed.batch_s(1) == 2.0
        world.clock.now += 60.0
        [outcome] = await outcomes(world.submit(picture(1), world.clock.now + 1.0))
        assert isinstance(outcome, Inferred)
        assert world.batcher.speed.batch_s(1) < 0.1

    run(scenario())


def test_a_batch_takes_at_most_its_share_of_the_first_images_whole_time(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        for images in (1, 2, 3, 4):
            world.batcher.speed.learn(images, 0.1 * images)
        await world.occupy_the_engine()
        tasks = [world.submit(picture(seed), world.clock.now + 0.5) for seed in range(4)]
        await ticks()
        world.clock.now += 0.2  # not of the remaining time: under load that would shrink the batches
        world.gate.set()
        assert all(isinstance(outcome, Inferred) for outcome in await outcomes(*tasks))
        assert world.batch_sizes == [1, 2, 2]  # 0.4 of 0.5 s are two images, where four would have taken 0.4 s

    run(scenario())


@pytest.mark.parametrize("kind", [POISON, NAN, EXITS])
def test_only_the_images_that_also_fail_alone_fail(run: Run, kind: float) -> None:
    async def scenario() -> None:
        world = World()
        world.gate.set()
        images = [picture(0), picture(1, kind), picture(2)]
        first, poison, last = await outcomes(*map(world.submit, images))
        assert isinstance(poison, EngineFailed)
        assert isinstance(first, Inferred)
        assert isinstance(last, Inferred)
        assert world.is_right(first, images[0])
        assert world.is_right(last, images[2])

    run(scenario())


def test_a_batch_that_fails_never_stops_the_next(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        poison = world.submit(picture(0, POISON))
        await ticks()
        image = picture(1)
        following = world.submit(image)
        await ticks()
        world.gate.set()
        failed, answered = await outcomes(poison, following)
        assert isinstance(failed, EngineFailed)
        assert isinstance(answered, Inferred)
        assert world.is_right(answered, image)

    run(scenario())


def test_a_batch_that_fails_does_not_change_the_estimate_of_the_speed(run: Run) -> None:
    async def scenario() -> None:
        clock = Clock()

        def fail(images: Image) -> None:
            clock.now += 5.0
            raise RuntimeError("after a long time")

        batcher = Batcher(
            FakeEngine(CLASSES, SIZE, fail=fail),
            max_batch_size=2,
            metrics=Metrics(CollectorRegistry()),
            clock=clock,
        )
        batcher.speed.learn(2, 0.5)
        await asyncio.gather(batcher.submit(picture(0)), batcher.submit(picture(1)), return_exceptions=True)
        assert batcher.speed.batch_s(2) == 0.5

    run(scenario())


def test_images_are_not_tried_one_by_one_while_the_engine_stays_unavailable(run: Run) -> None:
    async def scenario() -> None:
        asked: list[int] = []

        def fail(images: Image) -> None:
            asked.append(len(images))
            raise NotReady("the engine is being restarted", 7.0)

        engine = FakeEngine(CLASSES, SIZE, fail=fail)
        batcher = Batcher(engine, max_batch_size=4, metrics=Metrics(CollectorRegistry()))
        outcomes = await asyncio.gather(*(batcher.submit(picture(seed)) for seed in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotReady] * 3
        assert [str(outcome) for outcome in outcomes] == ["the engine is being restarted"] * 3
        assert [outcome.retry_after_s for outcome in outcomes if isinstance(outcome, NotReady)] == [7.0] * 3
        assert len({id(outcome) for outcome in outcomes}) == 3
        assert asked == [3]

    run(scenario())


def test_waiting_for_an_unavailable_engine_does_not_change_the_estimate_of_its_speed(run: Run) -> None:
    class Returning(FakeEngine):
        on_restart: Any = None
        unavailable_s = 2.0

        def restart(self) -> None:
            raise AssertionError("it is being started already")

    async def scenario() -> None:
        clock = Clock()

        def fail(images: Image) -> None:
            clock.now += 5.0

        engine = Returning(CLASSES, SIZE, fail=fail)
        registry = Metrics(CollectorRegistry())
        batcher = Batcher(engine, max_batch_size=1, metrics=registry, clock=clock)
        batcher.speed.learn(1, 0.5)
        assert (await batcher.submit(picture(0))).infer_s == 5.0
        assert batcher.speed.batch_s(1) == 0.5

    run(scenario())


@pytest.mark.parametrize(("kinds", "restarts"), [([POISON] * 5, 1), ([POISON] * 4 + [GOOD] + [POISON] * 4, 0)])
def test_an_engine_that_fails_many_batches_in_a_row_is_restarted(run: Run, kinds: list[float], restarts: int) -> None:
    class Restartable(FakeEngine):
        on_restart: Any = None
        unavailable_s = 0.0
        restarts = 0

        def restart(self) -> None:
            self.restarts += 1

    def fail(images: Image) -> None:
        if (images[:, 0, 0, 0] == POISON).any():
            raise RuntimeError("poison")

    async def scenario() -> None:
        engine = Restartable(CLASSES, SIZE, fail=fail)
        batcher = Batcher(engine, max_batch_size=4, metrics=Metrics(CollectorRegistry()))
        for seed, kind in enumerate(kinds):
            await asyncio.gather(batcher.submit(picture(seed, kind)), return_exceptions=True)
        assert engine.restarts == restarts

    run(scenario())


def test_an_answer_of_the_wrong_shape_is_a_failure(run: Run) -> None:
    async def scenario() -> None:
        engine = FakeEngine(CLASSES, SIZE, answer=lambda images: np.zeros((len(images), CLASSES + 1), np.float32))
        batcher = Batcher(engine, max_batch_size=4, metrics=Metrics(CollectorRegistry()))
        with pytest.raises(EngineFailed):
            await batcher.submit(picture(0))

    run(scenario())


def test_an_engine_that_reuses_its_output_buffer_changes_no_answer(run: Run) -> None:
    async def scenario() -> None:
        buffer = np.zeros((1, CLASSES), np.float32)

        def answer(images: Image) -> Image:
            buffer[:] = images[0, 0, 0, 0]
            return buffer

        engine = FakeEngine(CLASSES, SIZE, answer=answer)
        batcher = Batcher(engine, max_batch_size=1, metrics=Metrics(CollectorRegistry()))
        images = [picture(seed) for seed in range(3)]
        answers = await asyncio.gather(*map(batcher.submit, images))
        assert [answer.logits[0] for answer in answers] == [image[0, 0, 0] for image in images]

    run(scenario())


@pytest.mark.parametrize(
    "image", [np.zeros((3, SIZE, SIZE + 1), np.float32), np.zeros((SIZE, SIZE)), picture(0).astype(np.float64)]
)
def test_an_image_of_the_wrong_shape_never_enters_a_batch(run: Run, image: Image) -> None:
    async def scenario() -> None:
        world = World()
        with pytest.raises(ValueError, match="must be float32"):
            await world.batcher.submit(image)
        assert world.batcher.queue_depth == 0

    run(scenario())


def test_closing_finishes_accepted_images_and_rejects_new_ones(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        first = await world.occupy_the_engine()
        waiting = [world.submit(picture(seed)) for seed in range(6)]
        await ticks()
        closing = asyncio.create_task(world.batcher.close(30.0))
        await ticks()
        with pytest.raises(Draining):
            await world.batcher.submit(picture(7))
        world.gate.set()
        await closing
        assert world.batcher.idle
        assert all(isinstance(outcome, Inferred) for outcome in await outcomes(first, *waiting))

    run(scenario())


@pytest.mark.parametrize("interrupted", [False, True])
def test_closing_on_a_stuck_engine_leaves_nothing_pending(run: Run, interrupted: bool) -> None:
    async def scenario() -> None:
        world = World()
        first = await world.occupy_the_engine()
        waiting = [world.submit(picture(seed)) for seed in range(6)]
        await ticks()
        closing = asyncio.create_task(world.batcher.close(30.0 if interrupted else 0.0))
        if interrupted:
            await ticks()
            closing.cancel()
        await asyncio.wait([closing])
        assert all(isinstance(outcome, Draining) for outcome in await outcomes(first, *waiting))
        assert world.batcher.queue_depth == 0
        assert not world.batcher.idle
        world.gate.set()  # lets the thread end

    run(scenario())


def test_batches_are_counted(run: Run) -> None:
    async def scenario() -> None:
        world = World()
        world.gate.set()
        await asyncio.gather(*(world.batcher.submit(picture(seed)) for seed in range(3)))
        assert world.value("repvgg_batch_size_count") == 1
        assert world.value("repvgg_batch_size_sum") == 3
        assert world.batcher.speed.batch_s(MAX_BATCH) == 0.0  # on a clock that stands still

    run(scenario())


# --- whatever happens, every caller is answered ---------------------------------------------------------------------

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
