"""What is checked before a classifier is served, and how it ends."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from models.errors import BundleError
from service.classify.classifier import Classifier
from service.classify.outcomes import Classified
from service.engines.runtimes.fake import FakeEngine
from service.errors import (
    Draining,
    GoldenCheckFailed,
)
from service.observe.metrics import Metrics
from service.settings import Settings
from tests.service.classify.opened import Images, Opened, Run, SlowBytes


def test_the_metrics_name_the_model(run: Run, tiny_bundle: Path) -> None:
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


def test_a_warning_says_that_the_fake_engine_is_not_checked(
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


def test_any_other_engine_that_is_handed_in_is_checked_and_closed_if_it_fails(run: Run, tiny_bundle: Path) -> None:
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


def test_an_engine_for_another_input_size_is_rejected(run: Run, tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"\(32, 10\)"):
        run(Classifier.open(Settings(model=str(tiny_bundle)), Metrics(CollectorRegistry()), engine=FakeEngine(10, 64)))


def test_a_missing_bundle_is_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no model bundle at"):
        run(failing_open(tmp_path / "nowhere"))


def test_a_precision_the_bundle_does_not_have_is_named(run: Run, tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="no onnx artifact of precision int8"):
        run(failing_open(tiny_bundle, precision="int8"))


# --- closing --------------------------------------------------------------------------------------------------


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
            assert [type(outcome) for outcome in [*await first, *await decoding]] == [Classified, Classified]
            await closing
            assert it.engine.closed

    run(scenario())


def test_a_stuck_engine_or_decoder_does_not_keep_close_from_returning(
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
            assert [type(outcome) for outcome in await stuck] == [Draining]
            slow.gate.set()
            assert [type(outcome) for outcome in await decoding] == [Draining, Draining]
            assert not waiting.begun.is_set()

    run(scenario())


def test_a_closed_classifier_rejects_every_image(run: Run, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    async def scenario() -> None:
        async with Opened(tiny_bundle) as it:
            await it.classifier.close(30.0)
            assert [type(outcome) for outcome in await it.classify(jpeg_bytes)] == [Draining]

    run(scenario())
