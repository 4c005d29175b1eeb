from __future__ import annotations

import time
from pathlib import Path

import pytest

from service.classify.classifier import Classified
from service.errors import (
    DeadlineExceeded,
    Overloaded,
)
from tests.service.classify.opened import Opened, Run, SlowBytes


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


def test_a_deadline_too_short_for_an_idle_server_is_rejected_as_such_until_the_estimate_fades(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            it.classifier.batcher.speed.learn(1, 100.0)
            [outcome] = await it.classify(jpeg_bytes, deadline=time.monotonic() + 10)
            assert isinstance(outcome, DeadlineExceeded)
            assert "takes about" in outcome.detail
            for _ in range(1000):
                [outcome] = await it.classify(jpeg_bytes, deadline=time.monotonic() + 10)
                if isinstance(outcome, Classified):
                    break
            assert isinstance(outcome, Classified)

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
