from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from service.classify.batching import Batcher, Inferred
from service.engines.runtimes.fake import FakeEngine
from service.errors import DeadlineExceeded
from service.observe.metrics import Metrics
from tests.service.classify.batching_world import (
    CLASSES,
    MAX_BATCH,
    SIZE,
    Clock,
    Image,
    Run,
    World,
    outcomes,
    picture,
    ticks,
)


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
