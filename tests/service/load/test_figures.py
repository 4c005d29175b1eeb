from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import UsageError
from service.load.figures import Figures, Spread, summarise
from service.load.generator import Plan, Run, Sample

CLOSED = Plan(11.0, 2.0)


def sample(due_s: float, latency_s: float = 0.01, status: int = 200, code: str | None = None, **more: object) -> Sample:
    facts = {"late_s": 0.0, "timing": ""} | more
    return Sample(due_s=due_s, ended_s=due_s + latency_s, status=status, code=code, **facts)  # type: ignore[arg-type]


def figures(samples: list[Sample], plan: Plan = CLOSED, cpu_s: float = 0.1, **more: object) -> Figures:
    facts = {"url": "http://here", "model": "tiny/1", "deadline_ms": 1000, "images": 3, "warm_up_s": 1.0} | more
    return summarise(Run(samples, elapsed_s=11.0, cpu_s=cpu_s), plan, **facts)  # type: ignore[arg-type]


def test_percentiles_are_by_nearest_rank() -> None:
    spread = Spread.of(number / 1000 for number in range(1, 101))
    assert spread == Spread(mean=50.5, p50=50, p90=90, p95=95, p99=99, max=100)
    assert Spread.of([0.007]) == Spread(mean=7, p50=7, p90=7, p95=7, p99=7, max=7)
    assert Spread.of([]) is None


def test_the_warm_up_is_excluded_and_every_later_request_counts() -> None:
    found = figures([sample(0.5, 0.9), *[sample(1.0 + number) for number in range(10)]])
    assert (found.seconds, found.requests, found.answers) == (10.0, 10, 10)
    assert found.latency_ms is not None
    assert found.latency_ms.max == 10
    assert found.images_per_second == pytest.approx(1.1), "an answer that came in the window is an answer"


def test_refusals_and_failures_are_counted_by_code_and_excluded_from_latency() -> None:
    found = figures(
        [
            sample(2, 0.1),
            sample(2, 1.5),
            *[sample(3, 0.002, 503, "overloaded")] * 3,
            sample(4, 1.0, 504, "deadline_exceeded"),
            sample(4, 0.001, 500, "internal_error"),
            sample(5, 2.0, 0, "no answer in time"),
        ]
    )
    assert found.requests == 8
    assert (found.answers, found.answers_in_time) == (2, 1)
    assert {code: (refusal.count, refusal.latency_ms.p99) for code, refusal in found.refusals.items()} == {
        "overloaded": (3, 2),
        "deadline_exceeded": (1, 1000),
    }
    assert found.failures == {"internal_error": 1, "no answer in time": 1}
    assert found.latency_ms is not None
    assert found.latency_ms.max == 1500


def test_stages_come_from_the_server_and_outside_is_the_rest() -> None:
    timing = 'read;dur=0.5, decode;dur=2.0, queue;dur=0.1, infer;dur=9.0;desc="batch=4", total;dur=12.0'
    found = figures([sample(2, 0.015, timing=timing), sample(2, 0.015, timing=timing.replace("=4", "=1"))])
    assert {stage: spread.p50 for stage, spread in found.stages_ms.items()} == {
        **{"read": 0.5, "decode": 2, "queue": 0.1, "infer": 9, "total": 12},
        "outside": 3,
    }
    assert found.images_per_batch == 1.6, "two images were in 1 + 1/4 batches"


def test_a_generator_that_cannot_keep_up_is_reported() -> None:
    opened = Plan(11.0, 2.0, rate=5.0)
    assert list(figures([sample(2)], opened).warnings()) == []
    late = figures([sample(2, 0.2, late_s=0.15), sample(2)], opened)
    assert [text.partition(":")[0] for text in late.warnings()] == ["the load generator could not keep up"]
    assert "50% of the requests were sent more than 10 ms late, at worst 150 ms" in next(late.warnings())
    assert "used 95% of a CPU core" in next(figures([sample(2)], cpu_s=10.45).warnings())


def test_every_answer_is_in_the_histogram() -> None:
    found = figures([sample(2, 0.001), sample(2, 0.0105), sample(2, 0.0105), sample(2, 0.08), sample(2, 9, 503, "x")])
    assert sum(count for _, count in found.histogram) == 4
    bounds = [bound for bound, _ in found.histogram]
    assert bounds == sorted(bounds)
    (bound,) = (bound for bound, count in found.histogram if count == 2)
    assert 10.5 < bound < 10.5 * 2 ** (1 / 8) + 0.01


def test_without_an_answer_there_are_no_latencies() -> None:
    found = figures([sample(2, 1.0, 0, "connection refused")])
    assert (found.latency_ms, found.histogram, found.images_per_second) == (None, [], 0)


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = figures([sample(2, timing="total;dur=4"), sample(3, 0.1, 503, "overloaded")])
    path = tmp_path / "run.json"
    path.write_text(found.model_dump_json())
    assert Figures.read(path) == found


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), ("{}", "was not written by"), ("x", "was not")]
)
def test_another_file_is_wrong_usage(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=said):
        Figures.read(path)


def test_comparing_different_conditions_names_the_differences() -> None:
    one = figures([sample(2)])
    assert list(one.differences(figures([sample(3)], model="other/2"))) == []
    other = figures([sample(2)], Plan(11.0, 2.0, rate=5.0), deadline_ms=500)
    assert list(one.differences(other)) == [
        "the two runs differ in rate: None and 5.0",
        "the two runs differ in clients: 1 and None",
        "the two runs differ in deadline_ms: 1000 and 500",
    ]
