from __future__ import annotations

import asyncio
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry

from models.preprocess import preprocess
from models.store import open_bundle
from service.classify.classifier import Classified
from service.classify.decoding import DecodePool
from service.errors import (
    DeadlineExceeded,
)
from service.observe.metrics import Metrics
from service.settings import Settings
from tests.service.classify.opened import Images, Opened, Run, SlowBytes


@pytest.mark.parametrize("pixels", ["exact", "fast"])
def test_the_engine_gets_the_pixels_of_the_settings(
    run: Run, fast_bundle: Path, large_photo: bytes, pixels: Any
) -> None:
    seen: list[NDArray[np.float32]] = []

    def remember(images: Images) -> None:
        seen.extend(images.copy())

    async def scenario() -> None:
        async with Opened(fast_bundle, fail=remember, pixels=pixels) as it:
            await it.classify(large_photo)

    run(scenario())
    spec = open_bundle(fast_bundle).manifest.preprocess
    assert np.array_equal(seen[-1], preprocess(large_photo, spec, pixels=pixels))
    assert not np.array_equal(preprocess(large_photo, spec), preprocess(large_photo, spec, pixels="fast"))


def test_an_image_whose_caller_left_is_not_decoded(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, decode_threads=1) as it:
            slow, waiting = SlowBytes.of(jpeg_bytes), SlowBytes.of(jpeg_bytes)
            decoding, leaving = it.classify(slow), it.classify(waiting)
            await it.until(slow.begun.is_set)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert leaving.cancelled()
            slow.gate.set()
            [outcome] = await decoding
            assert isinstance(outcome, Classified)
            [after] = await it.classify(jpeg_bytes)  # the one thread would have decoded `waiting` before
            assert isinstance(after, Classified)
            assert not waiting.begun.is_set()
            assert it.value("repvgg_requests_cancelled_total", stage="decode") == 1

    run(scenario())


def test_an_image_whose_deadline_passed_is_not_decoded(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, decode_threads=1) as it:
            slow, waiting = SlowBytes.of(jpeg_bytes), SlowBytes.of(jpeg_bytes)
            decoding = it.classify(slow)
            await it.until(slow.begun.is_set)
            [late] = await it.classify(waiting, deadline=time.monotonic() + 0.05)
            assert isinstance(late, DeadlineExceeded)
            slow.gate.set()
            await decoding
            await it.classify(jpeg_bytes)
            assert not waiting.begun.is_set()
            assert it.value("repvgg_requests_cancelled_total", stage="decode") == 0

    run(scenario())


def test_a_jpeg_that_carries_more_pictures_counts_as_jpeg(run: Run, tiny_bundle: Path) -> None:
    encoded = BytesIO()
    Image.new("RGB", (32, 32)).save(encoded, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])

    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            await it.classify(encoded.getvalue())
            assert it.value("repvgg_images_total", format="jpeg") == 1

    run(scenario())


def test_the_backlog_follows_from_the_images_here_and_the_average_decode_time(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    spec = open_bundle(tiny_bundle).manifest.preprocess

    async def scenario() -> None:
        pool = DecodePool(spec, Settings(decode_threads=2), Metrics(CollectorRegistry()))
        assert (pool.images, pool.image_s, pool.backlog_s) == (0, 0.0, 0.0)
        first = await pool.decode(jpeg_bytes)
        assert pool.image_s == first.seconds > 0
        assert (pool.images, pool.backlog_s) == (0, 0.0)
        pool.images, pool.image_s = 4, 0.5
        assert pool.backlog_s == 1.0
        pool.fade()
        assert 0.4 < pool.image_s < 0.5
        pool.images = 0
        pool.close()

    run(scenario())
