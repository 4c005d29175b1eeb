from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.errors import ImageError
from models.preprocess import preprocess
from models.scores.topk import softmax, top_k
from models.store import open_bundle
from models.versions import write_version
from service.classify.classifier import Classifier
from service.classify.outcomes import Classified
from service.errors import (
    DeadlineExceeded,
    EngineFailed,
    ServiceError,
)
from service.observe.drift import SIGNALS
from service.observe.metrics import Metrics
from service.settings import Settings
from tests.service.classify.opened import DrawImage, Images, Opened, Run, far


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
        outcomes = await classifier.classify(images, top_k=10, deadline=far())
        reference = ReferenceEvaluator(str(tiny_bundle / "tiny.onnx"))
        for image, outcome in zip(images, outcomes, strict=True):
            (logits,) = reference.run(None, {"image": preprocess(image, bundle.manifest.preprocess)[None]})
            expected = top_k(softmax(logits[0]), bundle.labels, 10)
            assert isinstance(outcome, Classified)
            assert [p.label for p in outcome.predictions] == [p.label for p in expected]
            np.testing.assert_allclose([p.score for p in outcome.predictions], [p.score for p in expected], atol=1e-4)
        await classifier.close(30.0)

    run(scenario())


def test_each_image_has_its_own_outcome(run: Run, tiny_bundle: Path, draw_image: DrawImage) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, max_image_pixels=48 * 40) as it:
            good, huge, last = draw_image(0), draw_image(1, size=(49, 40)), draw_image(2, "PNG")
            first, empty, too_big, truncated, second = await it.classify(good, b"", huge, good[:200], last)
            assert isinstance(first, Classified)
            assert isinstance(second, Classified)
            assert first.predictions != second.predictions
            assert all(isinstance(outcome, ImageError) for outcome in (empty, too_big, truncated))
            assert [outcome.code for outcome in (empty, too_big, truncated)] == [
                "undecodable_image",
                "too_many_pixels",
                "undecodable_image",
            ]
            assert it.value("repvgg_decode_failures_total", reason="undecodable_image") == 2
            assert it.value("repvgg_decode_failures_total", reason="too_many_pixels") == 1

    run(scenario())


def test_pixels_over_the_limit_take_no_time_and_fail_no_other_image(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    huge = b"GIF89a" + b"\xff" * 4 + bytes(100)  # 65535 x 65535

    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            good, *others = await it.classify(jpeg_bytes, *[huge] * 10)
            assert isinstance(good, Classified)
            assert all(isinstance(other, ImageError) for other in others)
            assert isinstance((await it.classify(huge))[0], ImageError)

    run(scenario())


def test_an_image_that_the_engine_fails_on_fails_no_other(run: Run, tiny_bundle: Path, draw_image: DrawImage) -> None:
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
        raise RuntimeError("a bug")


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
            [outcome] = await stuck
            assert isinstance(outcome, Classified)

    run(scenario())


def test_a_request_after_its_deadline_is_rejected_without_work(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            [outcome] = await it.classify(jpeg_bytes, deadline=time.monotonic() - 1.0)
            assert isinstance(outcome, DeadlineExceeded)
            assert it.value("repvgg_batch_size_count") == 0

    run(scenario())


def test_a_caller_that_leaves_takes_its_images_out_of_the_queue(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
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


def test_a_caller_that_leaves_while_its_batch_is_in_the_engine_is_counted_in_that_stage(
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
            outcomes = [(await task)[0] for task in together]
            assert [outcome.source for outcome in outcomes] == ["miss", "collapsed", "collapsed"]
            assert len({outcome.predictions[0].score for outcome in outcomes}) == 1
            await first
            assert it.value("repvgg_batch_size_sum") == 2
            assert it.value("repvgg_images_total", format="jpeg") == 3
            assert it.value("repvgg_images_shared_total", source="collapsed") == 2
            [again] = await it.classify(jpeg_bytes)
            assert again.source == "miss"  # nothing is kept by default

    run(scenario())


def test_a_caller_that_leaves_does_not_cost_others_the_answer_to_the_same_image(
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


def test_the_shorter_deadline_of_another_caller_does_not_count(
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


def test_kept_answers_cost_no_work_and_serve_every_top_k(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, cache_bytes=1 << 20) as it:
            [computed] = await it.classify(jpeg_bytes)
            [kept] = await it.classifier.classify([jpeg_bytes], top_k=5, deadline=far())
            assert (computed.source, kept.source) == ("miss", "hit")
            assert kept.predictions[:3] == computed.predictions
            assert it.value("repvgg_batch_size_sum") == 1
            assert it.value("repvgg_stage_duration_seconds_count", stage="infer") == 1

    run(scenario())


def test_errors_are_not_kept(run: Run, tiny_bundle: Path) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle, cache_bytes=1 << 20) as it:
            for _ in range(2):
                [outcome] = await it.classify(b"no image")
                assert isinstance(outcome, ImageError)
            assert it.value("repvgg_decode_failures_total", reason="undecodable_image") == 2

    run(scenario())


def test_the_stages_of_an_answered_image_are_measured_and_counted(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes, png_bytes: bytes
) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            outcomes = await it.classify(jpeg_bytes, png_bytes)
            for stage in ("decode", "queue", "infer"):
                assert it.value("repvgg_stage_duration_seconds_count", stage=stage) == 2
                total = sum(getattr(outcome.timings, f"{stage}_s") for outcome in outcomes)
                assert it.value("repvgg_stage_duration_seconds_sum", stage=stage) == pytest.approx(total)
            assert it.value("repvgg_images_total", format="jpeg") == 1
            assert it.value("repvgg_images_total", format="png") == 1
            assert it.value("repvgg_top1_score_sum") == pytest.approx(sum(f.predictions[0].score for f in outcomes))
            assert it.value("repvgg_image_pixels_sum") == 2 * 48 * 40
            for signal in SIGNALS:
                assert it.value(f"repvgg_{signal}_count") == 2, signal
            for outcome in outcomes:
                assert (it.value("repvgg_predictions_total", label=outcome.predictions[0].label) or 0) > 0

    run(scenario())


def test_scores_are_those_of_the_manifests_temperature(
    run: Run, tiny_bundle: Path, jpeg_bytes: bytes, tmp_path: Path
) -> None:
    calibrated = write_version(open_bundle(tiny_bundle), tmp_path / "tiny" / "2", temperature=2.0).folder

    async def scores_of(bundle: Path) -> list[float]:
        async with Opened(bundle) as it:
            (outcome,) = await it.classifier.classify([jpeg_bytes], top_k=10, deadline=far())
            assert isinstance(outcome, Classified)
            assert it.value("repvgg_top1_score_sum") == outcome.predictions[0].score
            return [prediction.score for prediction in outcome.predictions]

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


def test_warm_up_counts_nothing_but_measures_the_speed(run: Run, tiny_bundle: Path) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            assert it.classifier.batcher.speed.image_s > 0
            assert it.value("repvgg_batch_size_count") == 0
            assert it.value("repvgg_engine_busy_seconds_total") == 0

    run(scenario())


@pytest.mark.parametrize("k", [0, 11])
def test_a_top_k_out_of_range_is_rejected(run: Run, tiny_bundle: Path, jpeg_bytes: bytes, k: int) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            with pytest.raises(ValueError, match=r"1\.\.10"):
                await it.classifier.classify([jpeg_bytes], top_k=k, deadline=far())

    run(scenario())


def test_no_images_give_no_outcomes(run: Run, tiny_bundle: Path) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            assert await it.classify() == []

    run(scenario())
