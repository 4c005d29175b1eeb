from __future__ import annotations

import asyncio
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry

from models.errors import ImageError
from models.formats.sizes import UNKNOWN, stated_size
from models.preprocess import preprocess
from models.store import open_bundle
from service.classify.decoding import DecodePool
from service.classify.outcomes import Classified
from service.classify.speed.decoding import DecodeSpeed
from service.errors import (
    DeadlineExceeded,
)
from service.observe.metrics import Metrics
from service.settings import Settings
from tests.service.classify.opened import DrawImage, Images, Opened, Run, SlowBytes


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


def pool_of(bundle: Path, threads: int = 2) -> DecodePool:
    spec = open_bundle(bundle).manifest.preprocess
    return DecodePool(spec, Settings(decode_threads=threads), Metrics(CollectorRegistry()))


async def begun(image: SlowBytes) -> None:
    await asyncio.to_thread(image.begun.wait, 60)


def test_the_backlog_follows_from_the_images_here_and_what_images_like_them_took(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        pool = pool_of(tiny_bundle)
        assert (pool.images, pool.wait_s()) == (0, 0.0)
        pool.speed.learn(stated_size(jpeg_bytes), 100.0)
        slow = SlowBytes.of(jpeg_bytes)
        decoding = [asyncio.create_task(pool.decode(slow)) for _ in range(4)]
        await begun(slow)
        assert pool.images == 4
        assert pool.wait_s() == pytest.approx(4 * 100 / 2, rel=0.1)
        slow.gate.set()
        await asyncio.gather(*decoding)
        assert (pool.images, pool.wait_s()) == (0, 0.0)
        pool.close()

    run(scenario())


def test_large_images_never_hold_up_smaller_ones(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes, draw_image: DrawImage
) -> None:
    async def scenario() -> None:
        pool = pool_of(tiny_bundle)
        slow = SlowBytes.of(draw_image(0, "PNG", (2500, 2000)))
        larger = [asyncio.create_task(pool.decode(slow)) for _ in range(10)]
        await begun(slow)
        await pool.decode(jpeg_bytes)
        assert pool.wait_s([stated_size(jpeg_bytes)]) == 0.0 < pool.wait_s([stated_size(slow)])
        slow.gate.set()
        await asyncio.gather(*larger)
        pool.close()

    run(scenario())


def test_a_file_that_hides_its_size_goes_to_the_line_of_its_pixels(
    run: Run, tiny_bundle: Path, draw_image: DrawImage
) -> None:
    hidden = draw_image(0, "JPEG", (2500, 2000))
    hidden = hidden[:2] + b"\xff\xe5\0\2" * 600 + hidden[2:]
    assert stated_size(hidden) == UNKNOWN

    async def scenario() -> None:
        pool = pool_of(tiny_bundle)
        seen: list[str] = []
        read = pool._read
        pool._read = lambda job, line: seen.append(threading.current_thread().name) or read(job, line)  # type: ignore[method-assign, func-returns-value]
        assert (await pool.decode(hidden)).pixels == 5_000_000
        assert [name.rpartition("_")[0] for name in seen] == ["decode-0", "decode-1"]
        pool.close()

    run(scenario())


def test_an_image_that_cannot_be_decoded_by_its_deadline_is_not_begun(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        pool = pool_of(tiny_bundle)
        pool.speed.learn(stated_size(jpeg_bytes), 1.0)
        slow = SlowBytes.of(jpeg_bytes)
        with pytest.raises(DeadlineExceeded):
            await pool.decode(slow, time.monotonic() + 0.5)
        assert not slow.begun.is_set()
        pool.close()

    run(scenario())


def test_a_broken_file_teaches_only_what_the_whole_one_takes_at_least(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        pool = pool_of(tiny_bundle)
        broken, stated = jpeg_bytes[:250], stated_size(jpeg_bytes)
        assert stated_size(broken) == stated
        pool.speed.learn(stated, 1.0)
        with pytest.raises(ImageError):
            await pool.decode(broken)
        assert pool.speed.expected_s(stated) == 1.0
        slow = SlowBytes.of(broken)
        pool.speed = DecodeSpeed()
        formula_s = pool.speed.expected_s(stated)
        failing = asyncio.create_task(pool.decode(slow))
        await begun(slow)
        await asyncio.sleep(10 * formula_s)
        slow.gate.set()
        with pytest.raises(ImageError):
            await failing
        assert pool.speed.expected_s(stated) > formula_s
        pool.close()

    run(scenario())
