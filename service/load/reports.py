"""The results of one load, or of two side by side, as text."""

from __future__ import annotations

from collections.abc import Iterator

from service.load.cost import core_hours_per_million, describe_cost
from service.load.figures import PERCENTILES, Figures, Spread

COLUMNS = tuple(Spread.model_fields)


def headline(figures: Figures) -> str:
    conditions = figures.conditions
    if conditions.rate is not None:
        load = f"open loop, {conditions.rate:g} requests/s"
    else:
        load = f"closed loop, {conditions.clients} {'rude ' * conditions.rude}client{'s' * (conditions.clients != 1)}"
        load += f", {conditions.polite} of them polite" * (conditions.polite > 0)
    model = f" ({figures.model})" if figures.model else ""
    return f"{figures.url}{model}: {load}, {figures.seconds:.1f} s, deadline {conditions.deadline_ms} ms"


def describe(figures: Figures, price_per_core_hour: float | None = None) -> Iterator[str]:
    """The results as lines of text."""
    yield headline(figures) + (", stopped early" if figures.stopped else "")
    yield (
        f"{figures.images_per_second:.1f} images/s; {figures.requests} requests, {figures.answers} answered, "
        f"{figures.answers_in_time} ({figures.answers_in_time / max(1, figures.requests):.1%}) within the deadline"
    )
    for name, group in figures.groups.items():
        yield (
            f"{group.clients} {name}: {group.requests} requests, {group.answers_in_time} answered within the deadline, "
            f"{group.in_time_per_second:.1f} a second"
        )
    yield f"{'milliseconds':<14}" + "".join(f"{name:>9}" for name in COLUMNS)
    rows: dict[str, Spread | None] = {"latency": figures.latency_ms}
    rows |= {f"  {stage}": spread for stage, spread in figures.stages_ms.items()}
    rows["sent late by"] = figures.generator.late_ms
    for name, spread in rows.items():
        if spread:
            yield f"{name:<14}" + "".join(f"{getattr(spread, column):>9.2f}" for column in COLUMNS)
    if figures.images_per_batch:
        yield f"{figures.images_per_batch:.2f} images in a batch"
    if figures.cpu_ms_per_image is not None:
        core_hours = core_hours_per_million(figures.cpu_ms_per_image / 1000)
        cost = describe_cost(core_hours, price_per_core_hour)
        yield f"{figures.cpu_ms_per_image:.2f} ms of the server's CPU per image: {cost}"
    for code, refusal in figures.refusals.items():
        latency = refusal.latency_ms
        yield f"refused {refusal.count}: {code}, p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms"
    for code, count in figures.failures.items():
        yield f"failed {count}: {code}"


def compared(a: Figures, b: Figures) -> dict[str, tuple[float | None, float | None, float | None]]:
    """Name -> the value in each run, and b / a; None where there is no value."""
    one, other = _comparable(a), _comparable(b)
    return {name: (one[name], other[name], _ratio(one[name], other[name])) for name in one}


def _comparable(figures: Figures) -> dict[str, float | None]:
    latency: dict[str, float] = figures.latency_ms.model_dump() if figures.latency_ms else {}
    return {
        "images/s": figures.images_per_second,
        "in time/s": figures.in_time_per_second,
        **{f"{name} ms": latency.get(name) for name in PERCENTILES},
        "CPU ms": figures.cpu_ms_per_image,
        "refused": sum(refusal.count for refusal in figures.refusals.values()),
        "failed": sum(figures.failures.values()),
    }


def _ratio(a: float | None, b: float | None) -> float | None:
    return round(b / a, 4) if a and b is not None else None


def describe_both(a: Figures, b: Figures) -> Iterator[str]:
    """A table of both runs and their ratios as lines of text."""
    yield f"A: {headline(a)}"
    yield f"B: {headline(b)}"
    yield f"{'':<10}{'A':>12}{'B':>12}{'B/A':>8}"
    for name, values in compared(a, b).items():
        cells = ["-" if value is None else f"{value:.2f}" for value in values]
        yield f"{name:<10}{cells[0]:>12}{cells[1]:>12}{cells[2]:>8}"
