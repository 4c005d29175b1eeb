from __future__ import annotations

import time
from pathlib import Path

import pytest

from models.formats.sizes import Stated, stated_size
from service.classify.outcomes import Classified
from service.errors import (
    DeadlineExceeded,
    Overloaded,
)
from tests.service.classify.opened import DrawImage, Opened, Run, SlowBytes


def test_a_request_that_would_miss_its_deadline_is_rejected_before_its_images_are_decoded(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            first = await it.occupied(jpeg_bytes)
            it.classifier.batcher.speed.learn_drained(1, 1000.0)  # an hour for what follows
            waiting = it.classify(jpeg_bytes, deadline=time.monotonic() + 36000)
            await it.until(lambda: it.classifier.batcher.queue_depth == 1)
            [refused] = await it.classify(b"this would be undecodable", deadline=time.monotonic() + 10)
            assert isinstance(refused, Overloaded)
            wait_s = it.classifier.predicted_wait_s
            assert it.value("repvgg_predicted_wait_seconds") == pytest.approx(wait_s, rel=0.1)
            assert 0.9 * wait_s < refused.retry_after_s + 8 < 1.1 * wait_s  # until it would fit, its own time included
            it.gate.set()
            assert all(isinstance(outcome, Classified) for outcome in [*await first, *await waiting])

    run(scenario())


def test_an_estimate_that_causes_rejections_is_measured_again_after_a_while(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            speed = it.classifier.batcher.speed
            speed.learn(1, 100.0)
            wrong_s = speed.batch_s(1)
            for _ in range(1000):
                [outcome] = await it.classify(jpeg_bytes, deadline=time.monotonic() + 10)
                assert isinstance(outcome, DeadlineExceeded)
                assert "takes about" in outcome.detail
            assert speed.batch_s(1) == wrong_s
            speed._clock = lambda: time.monotonic() + 60
            [outcome] = await it.classify(jpeg_bytes, deadline=time.monotonic() + 10)
            assert isinstance(outcome, Classified)
            assert speed.batch_s(1) < wrong_s / 100

    run(scenario())


def test_all_images_of_a_request_count_each_with_its_pixels(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, decode_threads=2) as it:
            it.classifier._decoders.speed.learn(stated_size(jpeg_bytes), 1.0)
            outcomes = await it.classify(*[jpeg_bytes] * 32, deadline=time.monotonic() + 10)
            assert all("takes about 16" in outcome.detail for outcome in outcomes)
            assert it.value("repvgg_batch_size_count") == 0
            [outcome] = await it.classify(jpeg_bytes, deadline=time.monotonic() + 10)
            assert isinstance(outcome, Classified)

    run(scenario())


def test_before_the_body_is_read_an_image_of_the_usual_kind_counts(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            first = await it.occupied(jpeg_bytes)
            it.classifier.batcher.speed.learn_drained(1, 1000.0)
            waiting = it.classify(jpeg_bytes, deadline=time.monotonic() + 36000)
            await it.until(lambda: it.classifier.batcher.queue_depth == 1)
            wait_s = it.classifier.predicted_wait_s
            it.classifier.admit(time.monotonic() + 1.6 * wait_s)
            it.classifier._decoders.speed.usual_s = wait_s
            with pytest.raises(Overloaded):
                it.classifier.admit(time.monotonic() + 1.6 * wait_s)
            it.classifier._decoders.speed.usual_s = 100 * wait_s
            it.classifier.admit(time.monotonic() + 3 * wait_s)  # it may be a smaller one
            it.gate.set()
            assert all(isinstance(outcome, Classified) for outcome in [*await first, *await waiting])
            it.classifier.admit(time.monotonic() + 0.1 * wait_s)

    run(scenario())


def test_slow_images_do_not_make_the_service_refuse_others(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    """One of 50 megapixels in 2 kB made 181 requests in a row fail on an idle server."""

    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            await it.classify(jpeg_bytes)
            it.classifier._decoders.speed.learn(Stated("lossless webp", 50_000_000), 30.0)
            [outcome] = await it.classify(jpeg_bytes, deadline=time.monotonic() + 10)
            assert isinstance(outcome, Classified)

    run(scenario())


def test_what_cannot_be_decoded_by_its_deadline_is_rejected_and_what_was_begun_counts_to_its_end(
    run: Run, tiny_bundle: Path, draw_image: DrawImage
) -> None:
    giant = draw_image(0, "PNG", (5000, 4200))

    async def scenario() -> None:
        async with Opened(tiny_bundle, decode_threads=2) as it:
            slow = SlowBytes.of(giant)
            [outcome] = await it.classify(slow, deadline=time.monotonic() + 0.1)  # nobody knows yet that it is slow
            assert isinstance(outcome, DeadlineExceeded)
            decoders, memory = it.classifier._decoders, it.classifier._admission._memory
            assert decoders.wait_s([stated_size(giant)]) > 0
            assert memory.held_bytes == len(giant)
            slow.gate.set()
            await it.until(lambda: memory.held_bytes == 0)
            assert decoders.wait_s([stated_size(giant)]) == 0
            assert decoders.speed.expected_s(stated_size(giant)) > 0.1  # what nobody waited for is learnt too
            for _ in range(20):
                [outcome] = await it.classify(giant, deadline=time.monotonic() + 0.1)
                assert "takes about" in outcome.detail

    run(scenario())


def test_memory_held_by_images_is_bounded_but_a_single_request_always_fits(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, max_queue_bytes=1) as it:
            first = await it.occupied(jpeg_bytes)
            [refused] = await it.classify(jpeg_bytes)
            assert isinstance(refused, Overloaded)
            it.gate.set()
            assert isinstance((await first)[0], Classified)
            assert all(isinstance(outcome, Classified) for outcome in await it.classify(jpeg_bytes, jpeg_bytes))

    run(scenario())


def test_decoding_counts_in_the_predicted_wait(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, decode_threads=1) as it:
            await it.classify(jpeg_bytes)
            idle_s = it.classifier.predicted_wait_s
            slow = SlowBytes.of(jpeg_bytes)
            decoding = it.classify(slow, slow, slow)
            await it.until(slow.begun.is_set)
            assert idle_s == 0.0
            assert it.classifier.predicted_wait_s > 0.0
            slow.gate.set()
            await decoding

    run(scenario())
