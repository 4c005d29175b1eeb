"""The measured rows -> tables of medians over the rounds, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from service.load.cost import core_hours_per_million
from service.load.figures import Figures

MISSING = "-"


@dataclass
class Turn:
    """One server in one round. `limit`: images/s in process; `closed` by clients, `open` by the share of capacity."""

    server: str
    round: int
    limit: float
    same_answers: float
    closed: dict[int, Figures] = field(default_factory=dict)
    open: dict[float, Figures] = field(default_factory=dict)

    @property
    def capacity(self) -> float:
        """Images/s, the best of the closed loops."""
        return max(figures.images_per_second for figures in self.closed.values())

    @property
    def is_ours(self) -> bool:
        return self.server.startswith("ours ")


# Of the table in docs/performance.md, with what is better.
CAPACITY, LATENCY = "best: images/s", "1 client: p50 ms"
HEADLINES = ((CAPACITY, "more is better"), (LATENCY, "less is better"))


def summary(turns: Sequence[Turn]) -> list[dict[str, str]]:
    """A row for each server, with medians over the rounds; ratios are those within a round."""
    best_peer = {
        number: max((turn.capacity for turn in turns if turn.round == number and not turn.is_ours), default=None)
        for number in {turn.round for turn in turns}
    }

    def ratio(turn: Turn) -> float | None:
        best = best_peer[turn.round]
        return turn.capacity / best if best else None

    columns: dict[str, Callable[[Turn], float | None]] = {
        LATENCY: lambda turn: _latency(turn.closed.get(1), "p50"),
        CAPACITY: lambda turn: turn.capacity,
        "CPU ms an image": _cpu_ms,
        "core hours a million": lambda turn: core_hours_per_million((_cpu_ms(turn) or 0.0) / 1000) or None,
        "/ in-process": lambda turn: turn.capacity / turn.limit,
        "/ best peer": ratio,
    }
    return [
        {"server": server}
        | {name: text for name, value in columns.items() if (text := _median(turns, server, value)) != MISSING}
        for server in dict.fromkeys(turn.server for turn in turns)
    ]


def as_markdown(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row.get(name, MISSING) for name in columns)} |"


def tables(turns: Sequence[Turn], baseline: str) -> Iterator[str]:
    """Lines of Markdown. A ratio is the median of those within each round; `baseline` is the server to compare with."""
    base = {turn.round: turn.capacity for turn in turns if turn.server == baseline}
    clients = sorted({number for turn in turns for number in turn.closed})
    shares = sorted({share for turn in turns for share in turn.open})
    closed: dict[str, Callable[[Turn], float | None]] = {"same answers": lambda turn: turn.same_answers}
    for number in clients:
        closed[f"{number}: images/s"] = lambda turn, n=number: _of(turn.closed.get(n), "images_per_second")
        closed[f"{number}: p50 ms"] = lambda turn, n=number: _latency(turn.closed.get(n), "p50")
        closed[f"{number}: CPU ms"] = lambda turn, n=number: _of(turn.closed.get(n), "cpu_ms_per_image")
        closed[f"{number}: p99 ms"] = lambda turn, n=number: _latency(turn.closed.get(n), "p99")
    closed["best / in-process"] = lambda turn: turn.capacity / turn.limit
    closed[f"best / {baseline}"] = lambda turn: turn.capacity / base[turn.round] if turn.round in base else None
    yield from _table("Closed loop, by number of clients", turns, closed)
    open_loop: dict[str, Callable[[Turn], float | None]] = {}
    for share in shares:
        if share < 1:
            open_loop[f"{share:g}x: p50 ms"] = lambda turn, s=share: _latency(turn.open.get(s), "p50")
        else:
            open_loop[f"{share:g}x: in time / capacity"] = lambda turn, s=share: _in_time(turn, s)
            open_loop[f"{share:g}x: refusals' p99 ms"] = lambda turn, s=share: _refusals(turn.open.get(s))
        open_loop[f"{share:g}x: p99 ms"] = lambda turn, s=share: _latency(turn.open.get(s), "p99")
    if open_loop:
        yield from _table("Open loop, by share of the server's own best closed loop", turns, open_loop)


def _table(title: str, turns: Sequence[Turn], columns: dict[str, Callable[[Turn], float | None]]) -> Iterator[str]:
    yield f"\n{title}\n"
    yield from as_markdown(
        [
            {"server": server} | {name: _median(turns, server, value) for name, value in columns.items()}
            for server in dict.fromkeys(turn.server for turn in turns)
        ]
    )


def _median(turns: Sequence[Turn], server: str, value: Callable[[Turn], float | None]) -> str:
    found = [each for turn in turns if turn.server == server and (each := value(turn)) is not None]
    return f"{median(found):.4g}" if found else MISSING


def _cpu_ms(turn: Turn) -> float | None:
    """In the closed loop with the most images/s."""
    return max(turn.closed.values(), key=lambda figures: figures.images_per_second).cpu_ms_per_image


def _of(figures: Figures | None, name: str) -> float | None:
    return getattr(figures, name) if figures else None


def _latency(figures: Figures | None, name: str) -> float | None:
    return getattr(figures.latency_ms, name) if figures and figures.latency_ms else None


def _in_time(turn: Turn, share: float) -> float | None:
    return turn.open[share].in_time_per_second / turn.capacity if share in turn.open else None


def _refusals(figures: Figures | None) -> float | None:
    """p99 of the slowest kind of refusal."""
    return max((refusal.latency_ms.p99 for refusal in figures.refusals.values()), default=None) if figures else None
