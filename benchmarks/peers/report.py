"""The measured rows -> tables of medians over the rounds, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from service.load.figures import Figures


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


def tables(turns: Sequence[Turn], baseline: str) -> Iterator[str]:
    """Lines of Markdown. A ratio is the median of those within each round; `baseline` is the server to compare with."""
    base = {turn.round: turn.capacity for turn in turns if turn.server == baseline}
    clients = sorted({number for turn in turns for number in turn.closed})
    shares = sorted({share for turn in turns for share in turn.open})
    closed: dict[str, Callable[[Turn], float | None]] = {"same answers": lambda turn: turn.same_answers}
    for number in clients:
        closed[f"{number}: images/s"] = lambda turn, n=number: _of(turn.closed.get(n), "images_per_second")
        closed[f"{number}: p50 ms"] = lambda turn, n=number: _latency(turn.closed.get(n), "p50")
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
    yield f"| server | {' | '.join(columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    for server in dict.fromkeys(turn.server for turn in turns):
        cells = []
        for value in columns.values():
            found = [each for turn in turns if turn.server == server and (each := value(turn)) is not None]
            cells.append(f"{median(found):.4g}" if found else "-")
        yield f"| {server} | {' | '.join(cells)} |"


def _of(figures: Figures | None, name: str) -> float | None:
    return getattr(figures, name) if figures else None


def _latency(figures: Figures | None, name: str) -> float | None:
    return getattr(figures.latency_ms, name) if figures and figures.latency_ms else None


def _in_time(turn: Turn, share: float) -> float | None:
    return turn.open[share].in_time_per_second / turn.capacity if share in turn.open else None


def _refusals(figures: Figures | None) -> float | None:
    """p99 of the slowest kind of refusal."""
    return max((refusal.latency_ms.p99 for refusal in figures.refusals.values()), default=None) if figures else None
