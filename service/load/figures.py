"""The results of a load: what `repvgg bench` prints, saves and compares.

1. the warm-up is excluded; every request due after it counts;
2. latency covers answers only; refusals and failures are counted by code, refusals with a latency of their own;
3. a generator that could not keep up is reported, and not blamed on the server;
4. comparing two runs with different conditions names the differences.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from service.errors import UsageError
from service.load.generator import Plan, Run, Sample

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "max": 1.0}
# Deliberate rejections: overload and missed deadlines. Every other status but 200 is a failure.
REFUSALS = frozenset({429, 503, 504})
# If more than LATE_SHARE of the requests are this late, or the generator is this busy, it measures itself.
LATE_S, LATE_SHARE, BUSY_SHARE = 0.010, 0.01, 0.9
BUCKETS_PER_DOUBLING = 8  # of the histogram: each bucket is 9 % wider than the one before

_STAGE = re.compile(r'(\w+);dur=([\d.]+)(?:;desc="batch=(\d+)")?')


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Record):
    """Nearest-rank percentiles, milliseconds."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Spread | None:
        """None if there are no values."""
        ordered = sorted(seconds)
        if not ordered:
            return None
        ranks = {name: ordered[max(0, math.ceil(share * len(ordered)) - 1)] for name, share in PERCENTILES.items()}
        values = {"mean": sum(ordered) / len(ordered), **ranks}
        return cls(**{name: round(value * 1000, 3) for name, value in values.items()})


class Refusal(_Record):
    count: int
    latency_ms: Spread


class Generator(_Record):
    """The load generator: how late it sent, the share of requests over 10 ms late, its CPU seconds per second."""

    late_ms: Spread | None
    late_share: float
    cpu_share: float


class Conditions(_Record):
    """What two runs must have in common to be comparable."""

    rate: float | None
    clients: int | None
    deadline_ms: int
    images: int
    rude: bool = False
    polite: int = 0


class Group(_Record):
    """Clients that behave alike. `in_time_per_second` is that of all of them together."""

    clients: int
    requests: int
    answers_in_time: int
    in_time_per_second: float


class Figures(_Record):
    """Rates are images per second over `seconds`, which begin after the warm-up and may end with Ctrl-C (`stopped`).

    `groups`: polite clients and the others, if there are both. `stages_ms` are the server's own measurements
    (Server-Timing); the stage `outside` is the rest of the latency: network, connecting, and waiting for the server's
    event loop. `cpu_ms_per_image`: of the server's processes, warm-up included; None if the server does not report it.
    `histogram`: (upper bound in ms, answers).
    """

    url: str
    model: str | None
    conditions: Conditions
    seconds: float
    stopped: bool
    requests: int
    answers: int
    answers_in_time: int
    images_per_second: float
    in_time_per_second: float
    latency_ms: Spread | None
    refusals: dict[str, Refusal]
    failures: dict[str, int]
    stages_ms: dict[str, Spread]
    images_per_batch: float | None
    generator: Generator
    cpu_ms_per_image: float | None = None
    groups: dict[str, Group] = {}
    histogram: list[tuple[float, int]]

    @classmethod
    def read(cls, path: Path) -> Figures:
        """Raises UsageError."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"--compare {path} cannot be read: {error.strerror}") from error
        except (ValidationError, UnicodeDecodeError) as error:
            raise UsageError(f"--compare {path} was not written by repvgg bench --save") from error

    def differences(self, other: Figures) -> Iterator[str]:
        """Why the two runs cannot be compared."""
        for name, mine in self.conditions:
            if mine != (theirs := getattr(other.conditions, name)):
                yield f"the two runs differ in {name}: {mine} and {theirs}"

    def warnings(self) -> Iterator[str]:
        """Why these results may describe the load generator rather than the server."""
        late, busy = self.generator.late_share, self.generator.cpu_share
        if late > LATE_SHARE and self.generator.late_ms:
            yield (
                f"the load generator could not keep up: {late:.0%} of the requests were sent more than "
                f"{LATE_S * 1000:.0f} ms late, at worst {self.generator.late_ms.max:.0f} ms; latencies include that"
            )
        if busy > BUSY_SHARE:
            yield f"the load generator used {busy:.0%} of a CPU core and may be the bottleneck instead of the server"


def summarise(
    run: Run,
    plan: Plan,
    *,
    url: str,
    model: str | None,
    deadline_ms: int,
    images: int,
    warm_up_s: float,
    server_cpu_s: float | None = None,
) -> Figures:
    """`server_cpu_s`: the CPU seconds of the server during the whole run."""
    counted_s = min(plan.seconds, run.elapsed_s)
    seconds = max(counted_s - warm_up_s, 1e-9)
    counted = [sample for sample in run.samples if sample.due_s >= warm_up_s]
    answers = [sample for sample in counted if sample.status == 200]
    in_time = sum(sample.latency_s * 1000 <= deadline_ms for sample in answers)
    # Answers that arrived in the window, whenever they were due: what is missing at one edge is extra at the other.
    came = sum(warm_up_s <= sample.ended_s < counted_s for sample in run.samples if sample.status == 200)
    stages, batches = _stages(answers)
    answered = sum(sample.status == 200 for sample in run.samples)
    closed = plan.rate is None
    return Figures(
        url=url,
        model=model,
        conditions=Conditions(
            rate=plan.rate,
            clients=plan.clients if closed else None,
            deadline_ms=deadline_ms,
            images=images,
            rude=plan.rude,
            polite=plan.polite,
        ),
        seconds=round(seconds, 3),
        stopped=run.stopped,
        requests=len(counted),
        answers=len(answers),
        answers_in_time=in_time,
        images_per_second=round(came / seconds, 2),
        in_time_per_second=round(in_time / seconds, 2),
        latency_ms=Spread.of(sample.latency_s for sample in answers),
        refusals=_refusals(counted),
        failures=Counter(str(sample.code) for sample in counted if sample.status not in REFUSALS | {200}),
        stages_ms=stages,
        images_per_batch=round(len(batches) / sum(1 / size for size in batches), 2) if batches else None,
        generator=_generator(run, counted, closed=closed),
        cpu_ms_per_image=round(server_cpu_s * 1000 / answered, 4) if server_cpu_s is not None and answered else None,
        groups=_groups(counted, plan, deadline_ms, seconds) if plan.polite else {},
        histogram=_histogram(answers),
    )


def _groups(samples: Sequence[Sample], plan: Plan, deadline_ms: int, seconds: float) -> dict[str, Group]:
    groups = {}
    for name, polite, clients in (
        ("rude" if plan.rude else "others", False, plan.clients - plan.polite),
        ("polite", True, plan.polite),
    ):
        mine = [sample for sample in samples if sample.polite == polite]
        in_time = sum(sample.status == 200 and sample.latency_s * 1000 <= deadline_ms for sample in mine)
        groups[name] = Group(
            clients=clients,
            requests=len(mine),
            answers_in_time=in_time,
            in_time_per_second=round(in_time / seconds, 2),
        )
    return groups


def _generator(run: Run, counted: Sequence[Sample], *, closed: bool) -> Generator:
    """A closed loop is never late."""
    return Generator(
        late_ms=None if closed else Spread.of(sample.late_s for sample in counted),
        late_share=round(sum(sample.late_s > LATE_S for sample in counted) / max(1, len(counted)), 4),
        cpu_share=round(run.cpu_s / run.elapsed_s, 4),
    )


def _refusals(samples: Sequence[Sample]) -> dict[str, Refusal]:
    by_code: defaultdict[str, list[float]] = defaultdict(list)
    for sample in samples:
        if sample.status in REFUSALS:
            by_code[str(sample.code)].append(sample.latency_s)
    spreads = {code: (len(latencies), Spread.of(latencies)) for code, latencies in by_code.items()}
    return {code: Refusal(count=count, latency_ms=spread) for code, (count, spread) in spreads.items() if spread}


def _stages(answers: Sequence[Sample]) -> tuple[dict[str, Spread], list[int]]:
    """The stages in Server-Timing over all answers, and the batch size of each answer."""
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    batches: list[int] = []
    for sample in answers:
        for stage, milliseconds, batch in _STAGE.findall(sample.timing):
            seconds[stage].append(float(milliseconds) / 1000)
            batches += [int(batch)] if batch else []
            if stage == "total":
                seconds["outside"].append(max(0.0, sample.latency_s - float(milliseconds) / 1000))
    return {stage: spread for stage, found in seconds.items() if (spread := Spread.of(found))}, batches


def _histogram(answers: Sequence[Sample]) -> list[tuple[float, int]]:
    """All buckets from the first to the last that is not empty."""
    floor_s = 1e-5
    counts = Counter(
        math.floor(math.log2(max(sample.latency_s, floor_s) * 1000) * BUCKETS_PER_DOUBLING) for sample in answers
    )
    if not counts:
        return []
    return [
        (round(2 ** ((bucket + 1) / BUCKETS_PER_DOUBLING), 4), counts[bucket])
        for bucket in range(min(counts), max(counts) + 1)
    ]
