from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from models.errors import ImageError
from models.manifest import Confidence
from models.scores.topk import Prediction
from models.store import Bundle, open_bundle
from models.versions import write_version
from service.classify.outcomes import Classified, LabelSet, Timings
from service.errors import FeedbackGiven, FeedbackRejected, UnknownRequest
from service.feedback.answered import Answered, Judgement
from service.observe.feedback import FeedbackMetrics

TIMINGS = Timings(0.0, 0.0, 0.0, 1)
BROKEN = ImageError("undecodable_image", "broken")
MODEL = {"model": "tiny", "version": "2"}


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    figures: dict[str, Any] = {"accuracy": 0.9, "answered": 0.6, "kept": 0.8, "quantiles": {0.9: 0.6}}
    fitted = Confidence(fitted_at="2026-11-29T12:00:00Z", images=1000, precision="fp32", threshold=0.5, **figures)
    folder = tmp_path_factory.mktemp("store") / "tiny" / "2"
    return write_version(open_bundle(tiny_bundle), folder, confidence=fitted)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def remembering(registry: CollectorRegistry, most: int = 100, **limits: int) -> Answered:
    return Answered(most, FeedbackMetrics(registry), **limits)


def answer(label: str = "cat", confident: bool | None = True, label_set: LabelSet | None = None) -> Classified:
    best = Prediction(label, 3, 0.7)
    return Classified([best], TIMINGS, "miss", best, confident=confident, label_set=label_set)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"repvgg_feedback_{name}", MODEL | labels)


def test_an_answer_is_right_wrong_or_to_a_foreign_image(registry: CollectorRegistry, bundle: Bundle) -> None:
    answered = remembering(registry)
    answered.note("r", bundle, [answer("cat"), answer("cat", confident=False), answer("dog"), answer("dog")])
    assert answered.judge("r", 0, "cat") == Judgement("right", "cat", True, None, True)
    assert answered.judge("r", 1, "dog") == Judgement("wrong", "cat", False, None, True)
    assert answered.judge("r", 2, None) == Judgement("foreign", "dog", True, None, True)
    assert value(registry, "total", label="cat", result="right") == 1
    assert value(registry, "total", label="dog", result="wrong") == 1
    assert value(registry, "total", label="", result="foreign") == 1
    assert value(registry, "total", label="cat", result="wrong") == 0  # from the start
    assert value(registry, "confident_total", confident="true", result="right") == 1
    assert value(registry, "confident_total", confident="false", result="wrong") == 1
    assert value(registry, "confident_total", confident="true", result="foreign") == 1
    assert value(registry, "confident_total", confident="false", result="right") == 0


def test_a_set_is_judged_by_the_coverage_that_was_promised(registry: CollectorRegistry, bundle: Bundle) -> None:
    answered = remembering(registry)
    sets = [LabelSet(0.9, ["cat", "dog"]), LabelSet(0.5, ["cat"]), LabelSet(0.9, ["cat"])]
    answered.note("r", bundle, [answer(label_set=one) for one in sets])
    found = [answered.judge("r", index, label).in_set for index, label in enumerate(("dog", "dog", None))]
    assert found == [True, False, False]
    assert value(registry, "sets_total", label="dog", result="held") == 1
    assert value(registry, "sets_total", label="dog", result="missed") == 1
    assert value(registry, "promised_total", label="dog") == pytest.approx(1.4)
    assert value(registry, "promised_total", label="") is None  # no set holds what is of no class


def test_the_same_label_again_changes_nothing_and_another_is_refused(
    registry: CollectorRegistry, bundle: Bundle
) -> None:
    answered = remembering(registry)
    answered.note("r", bundle, [answer()])
    assert [answered.judge("r", 0, "cat").counted for _ in range(3)] == [True, False, False]
    with pytest.raises(FeedbackGiven, match="image 0 already has a label: cat"):
        answered.judge("r", 0, "dog")
    with pytest.raises(FeedbackGiven):
        answered.judge("r", 0, None)
    assert value(registry, "total", label="cat", result="right") == 1


def test_what_is_not_there_is_named(registry: CollectorRegistry, bundle: Bundle) -> None:
    answered = remembering(registry)
    answered.note("r", bundle, [answer(), BROKEN])
    answered.note("none", bundle, [BROKEN])
    for unknown in ("other", "none"):
        with pytest.raises(UnknownRequest, match=f"request_id {unknown} .* the last 100 images"):
            answered.judge(unknown, 0, "cat")
    with pytest.raises(FeedbackRejected, match=r"tiny 2 has no 'zebra'; GET /models lists its labels"):
        answered.judge("r", 0, "zebra")
    with pytest.raises(FeedbackRejected, match="index=2: the request had 2 images"):
        answered.judge("r", 2, "cat")
    with pytest.raises(FeedbackRejected, match="index=1: this image got an error"):
        answered.judge("r", 1, "cat")
    assert answered.judge("r", 0, "cat").counted


def test_the_oldest_answers_are_forgotten_first(registry: CollectorRegistry, bundle: Bundle) -> None:
    answered = remembering(registry, most=4)
    for name, count in (("a", 2), ("b", 2), ("c", 1)):
        answered.note(name, bundle, [answer()] * count)
    with pytest.raises(UnknownRequest):
        answered.judge("a", 0, "cat")
    assert answered.judge("b", 1, "cat").counted
    answered.note("b", bundle, [answer("dog")])  # a client used the id again
    assert (answered.images, answered.judge("b", 0, "cat").result) == (2, "wrong")
    answered.note("large", bundle, [answer()] * 5)
    assert (answered.images, answered.bytes) == (0, 0)


def test_memory_is_bounded_and_estimated_well(registry: CollectorRegistry, bundle: Bundle) -> None:
    answered = remembering(registry, most=10**6, max_bytes=2_000_000)
    answered.note("before", bundle, [answer()])  # what all share
    labels = list(bundle.labels)
    tracemalloc.start()
    for number in range(4000):
        label_set = LabelSet(0.9, labels[: 1 + number % 10])
        answered.note(f"{number:032}", bundle, [answer(label_set=label_set) for _ in range(1 + number % 3)])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1_900_000 < answered.bytes <= 2_000_000
    assert 0.5 * answered.bytes < held < 1.1 * answered.bytes


def test_feedback_counts_for_the_bundle_that_answered(
    registry: CollectorRegistry, bundle: Bundle, tiny_bundle: Path
) -> None:
    answered = remembering(registry)
    answered.note("old", open_bundle(tiny_bundle), [answer(confident=None)])
    answered.note("new", bundle, [answer()])
    answered.judge("old", 0, "cat")
    old = {"model": "tiny", "version": "1"}
    assert registry.get_sample_value("repvgg_feedback_total", old | {"label": "cat", "result": "right"}) == 1
    assert value(registry, "total", label="cat", result="right") == 0
    names = {sample.labels["version"] for metric in registry.collect() for sample in metric.samples}
    assert names == {"1", "2"}
    confident = old | {"confident": "true", "result": "right"}
    assert registry.get_sample_value("repvgg_feedback_confident_total", confident) is None
