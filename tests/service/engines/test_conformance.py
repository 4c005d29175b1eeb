"""The checks that every engine has to pass (tests/service/engines/test_conformance.py) can fail."""

from __future__ import annotations

import itertools
import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.errors import BundleError
from models.golden import GoldenReport
from models.store import Bundle
from service.engines import conformance
from service.engines.conformance import CHECKS, ConformanceError, Effort, Row, Subject, in_own_process, verify_one
from service.engines.runtimes.fake import FakeEngine

Images = NDArray[np.float32]
IMAGES = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)


def subject(bundle: Bundle, answer: Callable[[Images], Images] | None = None, **changed: Any) -> Subject:
    engine = FakeEngine(10, 8, answer=answer)
    engine.name = "onnxruntime"  # its artifact is corrupted below
    alone = FakeEngine(10, 8).infer(IMAGES)
    whole = Subject(bundle, lambda _: engine, engine, GoldenReport(0.0, 1e-3, 1.0), IMAGES, alone, calls=100)
    return replace(whole, **changed)


def fails(check: str, it: Subject) -> str:
    with pytest.raises(ConformanceError) as failed:
        CHECKS[check](it)
    return str(failed.value)


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "corrupt artifact"])
def test_a_correct_engine_passes(full_bundle: Bundle, check: str) -> None:
    CHECKS[check](subject(full_bundle))


def test_it_reproduces_the_golden_logits_within_the_manifests_tolerance(full_bundle: Bundle) -> None:
    assert "0.5 off, 0.1 allowed" in fails("golden logits", subject(full_bundle, report=GoldenReport(0.5, 0.1, 1.0)))


def test_it_takes_any_batch_size_from_one_to_the_largest(full_bundle: Bundle) -> None:
    def even_only(images: Images) -> Images:
        return FakeEngine(10, 8).infer(images[: max(1, len(images) // 2 * 2)])

    assert "in a batch of 3 the logits have shape (2, 10)" in fails("any batch size", subject(full_bundle, even_only))
    doubles = subject(full_bundle, lambda images: FakeEngine(10, 8).infer(images).astype(np.float64))
    assert "float64" in fails("any batch size", doubles)


def test_an_images_answer_does_not_depend_on_the_other_images_of_its_batch(full_bundle: Bundle) -> None:
    def scaled_by_batch(images: Images) -> Images:
        return FakeEngine(10, 8).infer(images / np.abs(images).max())

    assert "beside louder images" in fails("no neighbours", subject(full_bundle, scaled_by_batch))


def test_the_last_of_many_calls_answers_like_the_first_and_memory_does_not_grow(
    full_bundle: Bundle,
) -> None:
    calls, kept = iter(range(1000)), []

    def drifting(images: Images) -> Images:
        return FakeEngine(10, 8).infer(images) + np.float32(1e-6 * next(calls))

    def hoarding(images: Images) -> Images:
        kept.append(np.ones(500_000, np.float32))
        return FakeEngine(10, 8).infer(images)

    assert "after 100 calls a logit is" in fails("no drift", subject(full_bundle, drifting))
    assert re.search("^memory grew by 2.* MB in 100 calls$", fails("no drift", subject(full_bundle, hoarding)))


def test_concurrent_calls_give_the_same_answers_as_single_ones(full_bundle: Bundle) -> None:
    shared = np.empty((1, 3, 8, 8), np.float32)
    everybody = threading.Barrier(2, timeout=1)

    def one_buffer_for_all(images: Images) -> Images:
        shared[...] = images
        everybody.wait()
        return FakeEngine(10, 8).infer(shared)

    assert "in concurrent calls" in fails("concurrent calls", subject(full_bundle, one_buffer_for_all))


def test_close_frees_the_memory(full_bundle: Bundle) -> None:
    kept = []

    def leaking(_: Bundle) -> FakeEngine:
        kept.append(np.ones(1_500_000, np.float32))
        return FakeEngine(10, 8)

    found = fails("close frees memory", subject(full_bundle, open=leaking))
    assert re.search("memory grew by 9.* MB while it was opened and closed 15 times", found)


def test_a_heap_may_grow_once(full_bundle: Bundle) -> None:
    openings = itertools.count()
    kept = []

    def settling(_: Bundle) -> FakeEngine:
        if next(openings) == conformance.CYCLES + 1:  # after the first round, for good
            kept.append(np.ones(15_000_000, np.float32))
        return FakeEngine(10, 8)

    CHECKS["close frees memory"](subject(full_bundle, open=settling))
    assert kept


def test_a_corrupt_artifact_raises_bundle_error(full_bundle: Bundle) -> None:
    def whatever(_: Bundle) -> FakeEngine:
        raise ValueError("what is this?")

    def right(bundle: Bundle) -> FakeEngine:
        raise BundleError(str(bundle.folder))

    assert "that is empty was loaded" in fails("corrupt artifact", subject(full_bundle))
    assert "that is empty raises ValueError: what is this?" in fails(
        "corrupt artifact", subject(full_bundle, open=whatever)
    )
    CHECKS["corrupt artifact"](subject(full_bundle, open=right))


def test_an_engine_that_dies_is_reported_as_a_failure() -> None:
    with pytest.raises(ConformanceError, match="its process died"):
        in_own_process(os.abort)


def test_unavailable_engines_say_why(full_bundle: Bundle, tiny_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.store import open_bundle

    effort = Effort(threads=1, max_batch_size=2, calls=1)
    tiny = open_bundle(tiny_bundle)
    assert "no golden tolerance for bf16" in str(verify_one(tiny, "openvino", "bf16", effort).unavailable)
    assert "no artifact" in str(verify_one(tiny, "mindspore", "fp32", effort).unavailable)
    monkeypatch.setattr(conformance, "is_installed", lambda name: False)
    found = verify_one(full_bundle, "openvino", "int8", effort)
    assert found == Row("openvino", "int8", unavailable="not installed: pip install 'repvgg[openvino]'")


def test_an_artifact_that_cannot_be_opened_is_a_failure(full_bundle: Bundle, tmp_path: Any) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no network")
    effort = Effort(threads=1, max_batch_size=2, calls=1)
    row = conformance.run_checks(replace(full_bundle, folder=tmp_path), Row("onnxruntime", "fp32"), effort, {})
    assert row.unavailable is None
    [(check, text)] = row.failures
    assert check == "open and answer"
    assert "cannot be loaded by ONNX Runtime" in text
