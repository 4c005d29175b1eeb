"""Failing images and engines, and the end."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.classify.batching import Batcher, Inferred
from service.engines.runtimes.fake import FakeEngine
from service.errors import Draining, EngineFailed, NotReady
from service.observe.metrics import Metrics
from tests.service.classify.batching_world import (
    CLASSES,
    EXITS,
    GOOD,
    MAX_BATCH,
    NAN,
    POISON,
    SIZE,
    Clock,
    Image,
    Run,
    World,
    outcomes,
    picture,
    ticks,
)


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
