from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Coroutine
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry

from models.errors import BundleError, ImageError
from models.preprocess import preprocess
from models.store import open_bundle
from models.topk import softmax, top_k
from models.versions import write_version
from service.classify.classifier import Classified, Classifier
from service.engines.runtimes.fake import FakeEngine
from service.errors import (
    DeadlineExceeded,
    Draining,
    EngineFailed,
    GoldenCheckFailed,
    Overloaded,
    ServiceError,
)
from service.observe.drift import SIGNALS
from service.observe.metrics import Metrics
from service.settings import Settings

Run = Callable[[Coroutine[Any, Any, Any]], Any]
DrawImage = Callable[..., bytes]
Images = NDArray[np.float32]


def far() -> float:
    return time.monotonic() + 60.0


class Opened:
    """`async with Opened(bundle) as it`: a classifier on the fake engine (its gate is open).

    Equal images are computed one by one unless told otherwise: most tests take the same image again and again.
    """

    def __init__(self, bundle: Path, *, fail: Callable[[Images], None] | None = None, **settings: Any) -> None:
        self.settings = Settings(model=str(bundle), **{"single_flight": "off", **settings})
        self.registry = CollectorRegistry()
        self.gate = threading.Event()
        self.engine = FakeEngine(10, 32, gate=self.gate, fail=fail)

    async def __aenter__(self) -> Opened:
        self.gate.set()
        self.classifier = await Classifier.open(self.settings, Metrics(self.registry), engine=self.engine)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        await self.classifier.close(30.0)

    def classify(self, *images: bytes, deadline: float | None = None) -> asyncio.Task[list[Any]]:
        return asyncio.create_task(self.classifier.classify(images, top_k=3, deadline=deadline or far()))

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Decoding happens in threads: turn the loop until it shows."""
        give_up_at = time.monotonic() + 30.0
        while not is_so():
            assert time.monotonic() < give_up_at
            await asyncio.sleep(0)

    async def occupied(self, image: bytes) -> asyncio.Task[list[Any]]:
        """The engine is at work on `image` until the gate opens."""
        self.gate.clear()
        task = self.classify(image)
        await self.until(lambda: not self.classifier.batcher.idle)
        return task

    def value(self, sample: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(sample, labels)


def test_an_image_gets_the_predictions_of_its_own_pixels(run: Run, tiny_bundle: Path, draw_image: DrawImage) -> None:
    """Through the real engine, against the reference: preprocessing, inference and top-k each on their own."""

    async def scenario() -> None:
        from onnx.reference import ReferenceEvaluator

        bundle = open_bundle(tiny_bundle)
        classifier = await Classifier.open(
            Settings(model=str(tiny_bundle), engine="onnxruntime"), Metrics(CollectorRegistry())
        )
        assert classifier.engine.name == "onnxruntime"
        images = [draw_image(seed, kind) for seed, kind in enumerate(("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"))]
        fates = await classifier.classify(images, top_k=10, deadline=far())
        reference = ReferenceEvaluator(str(tiny_bundle / "tiny.onnx"))
        for image, fate in zip(images, fates, strict=True):
            (logits,) = reference.run(None, {"image": preprocess(image, bundle.manifest.preprocess)[None]})
            expected = top_k(softmax(logits[0]), bundle.labels, 10)
            assert isinstance(fate, Classified)
            assert [p.label for p in fate.predictions] == [p.label for p in expected]
            np.testing.assert_allclose([p.score for p in fate.predictions], [p.score for p in expected], atol=1e-4)
        await classifier.close(30.0)

    run(scenario())


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


def test_each_image_has_its_own_fate(run: Run, tiny_bundle: Path, draw_image: DrawImage) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, max_image_pixels=48 * 40) as it:
            good, huge, last = draw_image(0), draw_image(1, size=(49, 40)), draw_image(2, "PNG")
            first, empty, too_big, truncated, second = await it.classify(good, b"", huge, good[:200], last)
            assert isinstance(first, Classified)
            assert isinstance(second, Classified)
            assert first.predictions != second.predictions
            assert all(isinstance(fate, ImageError) for fate in (empty, too_big, truncated))
            assert [fate.code for fate in (empty, too_big, truncated)] == [
                "undecodable_image",
                "too_many_pixels",
                "undecodable_image",
            ]
            assert it.value("repvgg_decode_failures_total", reason="undecodable_image") == 2
            assert it.value("repvgg_decode_failures_total", reason="too_many_pixels") == 1

    run(scenario())


def test_what_the_engine_fails_on_fails_no_neighbour(run: Run, tiny_bundle: Path, draw_image: DrawImage) -> None:
    images = [draw_image(seed) for seed in range(3)]
    poison = preprocess(images[1], open_bundle(tiny_bundle).manifest.preprocess)

    def fail(batch: Images) -> None:
        if any(np.array_equal(image, poison) for image in batch):
            raise RuntimeError("poison")

    async def scenario() -> None:
        async with Opened(tiny_bundle, fail=fail) as it:
            first, failed, last = await it.classify(*images)
            assert isinstance(first, Classified)
            assert isinstance(failed, EngineFailed)
            assert isinstance(last, Classified)

    run(scenario())


class BrokenBytes(bytes):
    def __bool__(self) -> bool:
        raise RuntimeError("what nobody foresaw")


def test_a_bug_fails_only_its_image_and_shows_nothing(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            broken, fine = await it.classify(BrokenBytes(jpeg_bytes), jpeg_bytes)
            assert type(broken) is ServiceError
            assert broken.detail == "internal error"
            assert isinstance(fine, Classified)

    run(scenario())
    assert "Traceback" in caplog.text


def test_a_request_that_would_not_be_answered_in_time_is_refused_before_its_images_are_decoded(
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
            assert all(isinstance(fate, Classified) for fate in [*await first, *await waiting])

    run(scenario())


def test_what_even_an_idle_server_could_not_do_in_time_is_told_so_until_the_estimate_has_faded(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            it.classifier.batcher.speed.learn(1, 100.0)
            [fate] = await it.classify(jpeg_bytes, deadline=time.monotonic() + 10)
            assert isinstance(fate, DeadlineExceeded)
            assert "takes about" in fate.detail
            for _ in range(1000):
                [fate] = await it.classify(jpeg_bytes, deadline=time.monotonic() + 10)
                if isinstance(fate, Classified):
                    break
            assert isinstance(fate, Classified)

    run(scenario())


def test_images_that_are_held_are_bounded_in_bytes_but_one_request_always_fits(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, max_queue_bytes=1) as it:
            first = await it.occupied(jpeg_bytes)
            [refused] = await it.classify(jpeg_bytes)
            assert isinstance(refused, Overloaded)
            it.gate.set()
            assert isinstance((await first)[0], Classified)
            assert all(isinstance(fate, Classified) for fate in await it.classify(jpeg_bytes, jpeg_bytes))

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


def test_every_caller_is_answered_by_its_deadline_whatever_the_engine_does(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            stuck = await it.occupied(jpeg_bytes)
            [late] = await it.classify(jpeg_bytes, deadline=time.monotonic() + 0.05)
            assert isinstance(late, DeadlineExceeded)
            await it.until(lambda: it.classifier.batcher.queue_depth == 0)
            it.gate.set()
            [fate] = await stuck
            assert isinstance(fate, Classified)

    run(scenario())


def test_a_passed_deadline_is_told_without_work(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            [fate] = await it.classify(jpeg_bytes, deadline=time.monotonic() - 1.0)
            assert isinstance(fate, DeadlineExceeded)
            assert it.value("repvgg_batch_size_count") == 0

    run(scenario())


class SlowBytes(bytes):
    """An image whose decoding waits for `gate` and is remembered in `begun`."""

    gate: threading.Event
    begun: threading.Event

    @classmethod
    def of(cls, image: bytes) -> SlowBytes:
        slow = cls(image)
        slow.gate, slow.begun = threading.Event(), threading.Event()
        return slow

    def __bool__(self) -> bool:
        self.begun.set()
        return self.gate.wait(timeout=60)


def test_an_image_whose_caller_left_is_not_decoded_any_more(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, decode_threads=1) as it:
            slow, waiting = SlowBytes.of(jpeg_bytes), SlowBytes.of(jpeg_bytes)
            decoding, leaving = it.classify(slow), it.classify(waiting)
            await it.until(slow.begun.is_set)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert leaving.cancelled()
            slow.gate.set()
            [fate] = await decoding
            assert isinstance(fate, Classified)
            [after] = await it.classify(jpeg_bytes)  # the one thread would have decoded `waiting` before
            assert isinstance(after, Classified)
            assert not waiting.begun.is_set()
            assert it.value("repvgg_requests_cancelled_total", stage="decode") == 1

    run(scenario())


def test_an_image_whose_deadline_passed_is_not_decoded_any_more(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
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


def test_a_caller_that_leaves_the_queue_frees_its_places(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            first = await it.occupied(jpeg_bytes)
            leaving = it.classify(b"", jpeg_bytes, jpeg_bytes)
            await it.until(lambda: it.classifier.batcher.queue_depth == 2)
            leaving.cancel()
            await it.until(lambda: it.classifier.batcher.queue_depth == 0)
            it.gate.set()
            await first
            assert it.value("repvgg_requests_cancelled_total", stage="queue") == 1
            assert it.value("repvgg_batch_size_sum") == 1

    run(scenario())


def test_a_caller_that_leaves_a_batch_in_the_engine_counts_as_such(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            leaving = await it.occupied(jpeg_bytes)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert it.value("repvgg_requests_cancelled_total", stage="infer") == 1
            it.gate.set()

    run(scenario())


# --- equal images ---------------------------------------------------------------------------------------------------


def test_equal_images_that_come_together_are_computed_once(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes, png_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, single_flight="on") as it:
            first = await it.occupied(png_bytes)
            together = [it.classify(jpeg_bytes) for _ in range(3)]
            await it.until(lambda: it.classifier.batcher.queue_depth == 1)
            await asyncio.sleep(0)
            it.gate.set()
            fates = [(await task)[0] for task in together]
            assert [fate.source for fate in fates] == ["miss", "collapsed", "collapsed"]
            assert len({fate.predictions[0].score for fate in fates}) == 1
            await first
            assert it.value("repvgg_batch_size_sum") == 2
            assert it.value("repvgg_images_total", format="jpeg") == 3
            assert it.value("repvgg_images_shared_total", source="collapsed") == 2
            [again] = await it.classify(jpeg_bytes)
            assert again.source == "miss"  # nothing is kept unless told so

    run(scenario())


def test_one_that_leaves_takes_nothing_from_those_that_wait_for_the_same_image(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes, png_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, single_flight="on") as it:
            first = await it.occupied(png_bytes)
            leaving, staying = it.classify(jpeg_bytes), it.classify(jpeg_bytes)
            await it.until(lambda: it.classifier.batcher.queue_depth == 1)
            leaving.cancel()
            await asyncio.wait([leaving])
            it.gate.set()
            assert isinstance((await staying)[0], Classified)
            await first

    run(scenario())


def test_the_shorter_deadline_of_another_caller_is_not_ones_own(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes, png_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, single_flight="on") as it:
            first = await it.occupied(png_bytes)
            hurried = it.classify(jpeg_bytes, deadline=time.monotonic() + 0.2)
            patient = it.classify(jpeg_bytes)
            assert isinstance((await hurried)[0], DeadlineExceeded)
            it.gate.set()
            assert isinstance((await patient)[0], Classified)
            await first

    run(scenario())


def test_kept_answers_come_without_work_and_serve_every_top_k(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, cache_bytes=1 << 20) as it:
            [computed] = await it.classify(jpeg_bytes)
            [kept] = await it.classifier.classify([jpeg_bytes], top_k=5, deadline=far())
            assert (computed.source, kept.source) == ("miss", "hit")
            assert kept.predictions[:3] == computed.predictions
            assert it.value("repvgg_batch_size_sum") == 1
            assert it.value("repvgg_stage_duration_seconds_count", stage="infer") == 1

    run(scenario())


def test_what_is_wrong_with_an_image_is_not_kept(run: Run, tiny_bundle: Path) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, cache_bytes=1 << 20) as it:
            for _ in range(2):
                [fate] = await it.classify(b"no image")
                assert isinstance(fate, ImageError)
            assert it.value("repvgg_decode_failures_total", reason="undecodable_image") == 2

    run(scenario())


def test_the_stages_of_an_answered_image_are_measured_and_counted(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes, png_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            fates = await it.classify(jpeg_bytes, png_bytes)
            for stage in ("decode", "queue", "infer"):
                assert it.value("repvgg_stage_duration_seconds_count", stage=stage) == 2
                total = sum(getattr(fate.timings, f"{stage}_s") for fate in fates)
                assert it.value("repvgg_stage_duration_seconds_sum", stage=stage) == pytest.approx(total)
            assert it.value("repvgg_images_total", format="jpeg") == 1
            assert it.value("repvgg_images_total", format="png") == 1
            assert it.value("repvgg_top1_score_sum") == pytest.approx(sum(f.predictions[0].score for f in fates))
            assert it.value("repvgg_image_pixels_sum") == 2 * 48 * 40
            for signal in SIGNALS:
                assert it.value(f"repvgg_{signal}_count") == 2, signal
            for fate in fates:
                assert (it.value("repvgg_predictions_total", label=fate.predictions[0].label) or 0) > 0

    run(scenario())


def test_a_phones_jpeg_with_further_pictures_counts_as_jpeg(run: Run, tiny_bundle: Path) -> None:
    encoded = BytesIO()
    Image.new("RGB", (32, 32)).save(encoded, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])

    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            await it.classify(encoded.getvalue())
            assert it.value("repvgg_images_total", format="jpeg") == 1

    run(scenario())


def test_scores_are_those_of_the_manifests_temperature(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes, tmp_path: Path
) -> None:
    calibrated = write_version(open_bundle(tiny_bundle), tmp_path / "tiny" / "2", temperature=2.0).folder

    async def scores_of(bundle: Path) -> list[float]:
        async with Opened(bundle) as it:
            (fate,) = await it.classifier.classify([jpeg_bytes], top_k=10, deadline=far())
            assert isinstance(fate, Classified)
            assert it.value("repvgg_top1_score_sum") == fate.predictions[0].score
            return [prediction.score for prediction in fate.predictions]

    async def scenario() -> None:
        plain, at_temperature = np.array(await scores_of(tiny_bundle)), np.array(await scores_of(calibrated))
        # exp(z / 2) is the square root of exp(z).
        assert at_temperature == pytest.approx(np.sqrt(plain) / np.sqrt(plain).sum())

    run(scenario())


def test_golden_delta_and_the_time_of_a_batch_are_measured_when_the_model_is_open(run: Run, tiny_bundle: Path) -> None:
    async def scenario() -> None:
        registry = CollectorRegistry()
        settings = Settings(model=str(tiny_bundle), engine="onnxruntime", max_batch_size=4)
        classifier = await Classifier.open(settings, Metrics(registry))
        assert 0 < (registry.get_sample_value("repvgg_golden_delta") or 0) <= 1e-4
        assert registry.get_sample_value("repvgg_golden_tolerance") == 1e-4
        for images in (1, 4):
            seconds = registry.get_sample_value("repvgg_batch_expected_seconds", {"images": str(images)})
            assert seconds == classifier.batcher.speed.batch_s(images) > 0
        await classifier.close(30.0)

    run(scenario())


def test_warming_up_counts_nothing_but_measures_the_speed(run: Run, tiny_bundle: Path) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            assert it.classifier.batcher.speed.image_s > 0
            assert it.value("repvgg_batch_size_count") == 0
            assert it.value("repvgg_engine_busy_seconds_total") == 0

    run(scenario())


@pytest.mark.parametrize("k", [0, 11])
def test_a_top_k_out_of_range_is_refused(run: Run, tiny_bundle: Path, jpeg_bytes: bytes, k: int) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            with pytest.raises(ValueError, match=r"1\.\.10"):
                await it.classifier.classify([jpeg_bytes], top_k=k, deadline=far())

    run(scenario())


def test_no_image_has_no_fate(run: Run, tiny_bundle: Path) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            assert await it.classify() == []

    run(scenario())


# --- opening --------------------------------------------------------------------------------------------------------


def test_the_model_is_named_in_the_metrics(run: Run, tiny_bundle: Path) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            digest = hashlib.sha256((tiny_bundle / "manifest.json").read_bytes()).hexdigest()
            labels = {"name": "tiny", "version": "1", "engine": "fake", "precision": "fp32", "sha256": digest}
            assert it.value("repvgg_model_info", **labels) == 1
            assert it.value("repvgg_predictions_total", label="frog") == 0

    run(scenario())


async def failing_open(bundle: Path, **settings: Any) -> None:
    await Classifier.open(
        Settings(model=str(bundle), **({"engine": "onnxruntime"} | settings)), Metrics(CollectorRegistry())
    )


def test_nothing_is_served_before_the_engine_has_reproduced_the_golden_logits(run: Run, wrong_bundle: Path) -> None:
    with pytest.raises(GoldenCheckFailed, match=r"onnxruntime fp32 is up to .* off the golden logits"):
        run(failing_open(wrong_bundle))


def test_the_fake_engine_is_not_checked_and_says_so(
    run: Run, wrong_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        classifier = await Classifier.open(
            Settings(model=str(wrong_bundle), engine="fake"), Metrics(CollectorRegistry())
        )
        assert classifier.engine.name == "fake"
        await classifier.close(0.0)

    run(scenario())
    assert "no golden logits are checked" in caplog.text


def test_a_handed_in_engine_that_is_not_the_fake_is_checked_and_closed_when_it_fails(
    run: Run, tiny_bundle: Path
) -> None:
    class Another(FakeEngine):
        name = "another"

    engine = Another(10, 32)
    with pytest.raises(GoldenCheckFailed, match="another"):
        run(Classifier.open(Settings(model=str(tiny_bundle)), Metrics(CollectorRegistry()), engine=engine))
    assert engine.closed


def test_an_engine_that_raises_on_the_golden_images_has_failed_the_check(run: Run, tiny_bundle: Path) -> None:
    class Another(FakeEngine):
        name = "another"

    def fail(images: Images) -> None:
        raise RuntimeError("no such operator")

    engine = Another(10, 32, fail=fail)
    with pytest.raises(GoldenCheckFailed, match="no such operator"):
        run(Classifier.open(Settings(model=str(tiny_bundle)), Metrics(CollectorRegistry()), engine=engine))


def test_an_engine_for_another_input_size_is_refused(run: Run, tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"\(32, 10\)"):
        run(Classifier.open(Settings(model=str(tiny_bundle)), Metrics(CollectorRegistry()), engine=FakeEngine(10, 64)))


def test_a_missing_bundle_is_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no model bundle at"):
        run(failing_open(tmp_path / "nowhere"))


def test_a_precision_the_bundle_does_not_have_is_named(run: Run, tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="no onnx artifact of precision int8"):
        run(failing_open(tiny_bundle, precision="int8"))


# --- closing --------------------------------------------------------------------------------------------------------


def test_what_was_accepted_before_closing_is_answered_within_the_grace_time(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            first = await it.occupied(jpeg_bytes)
            slow = SlowBytes.of(jpeg_bytes)
            decoding = it.classify(slow)
            await it.until(slow.begun.is_set)
            closing = asyncio.create_task(it.classifier.close(30.0))
            await asyncio.sleep(0)
            [refused] = await it.classify(jpeg_bytes)
            assert isinstance(refused, Draining)
            assert not it.engine.closed
            it.gate.set()
            slow.gate.set()
            assert [type(fate) for fate in [*await first, *await decoding]] == [Classified, Classified]
            await closing
            assert it.engine.closed

    run(scenario())


def test_a_stuck_engine_or_decoder_does_not_keep_closing_from_ending(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, decode_threads=1) as it:
            stuck = await it.occupied(jpeg_bytes)
            slow, waiting = SlowBytes.of(jpeg_bytes), SlowBytes.of(jpeg_bytes)
            decoding = it.classify(slow, waiting)
            await it.until(slow.begun.is_set)
            await it.classifier.close(0.0)
            assert not it.engine.closed
            assert [type(fate) for fate in await stuck] == [Draining]
            slow.gate.set()
            assert [type(fate) for fate in await decoding] == [Draining, Draining]
            assert not waiting.begun.is_set()

    run(scenario())


def test_a_closed_classifier_answers_no_image(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            await it.classifier.close(30.0)
            assert [type(fate) for fate in await it.classify(jpeg_bytes)] == [Draining]

    run(scenario())
