"""What happens beside the training of a run: freezing, early stopping, a time limit, further logs, and whatever a user
adds.

1. callbacks are called in the order of the recipe, on every rank, with the same figures on all ranks;
2. a reason returned from `on_epoch_end` makes this epoch the run's last one, and the same command does not resume it;
3. one that the recipe names but that cannot be imported is an error before the first step.

A callback of your own is a function `package.module:name` that takes the configuration and returns a Callback; name it
in the recipe, `callbacks: [csv, package.module:name]`.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from statistics import median
from typing import TYPE_CHECKING

from training.config import TrainConfig
from training.config.choices import CALLBACKS
from training.errors import ConfigError
from training.network import repvgg
from training.run.assembly import Run
from training.run.distributed import ranks
from training.run.resume import Progress
from training.storage.files import write_whole

if TYPE_CHECKING:
    from training.run.record.journal import Line


@dataclass(frozen=True)
class Report:
    """The end of an epoch: its line of log.jsonl, and the run's progress including this epoch."""

    run: Run
    line: Line
    progress: Progress


class Callback:
    """Override what you need."""

    def on_build(self, network: repvgg.RepVGG) -> None:
        """The network is built, and the optimizer is not: parameters that should not learn can still say so."""

    def on_start(self, run: Run, progress: Progress) -> None:
        """The weights are loaded and no step is done; `progress` is not empty where the run is resumed."""

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Before the first step of this process in the epoch; epochs count from 0."""

    def on_epoch_end(self, report: Report) -> str | None:
        """After the epoch's evaluation -> why the run should end here, or None."""
        return None

    def on_end(self, run: Run) -> None:
        """Whatever ends the training in this process: its last epoch, a request to stop, or an error."""


class Freezing(Callback):
    """Keeps the first `stages` stages as they are."""

    def __init__(self, stages: int) -> None:
        self.stages = stages

    def on_build(self, network: repvgg.RepVGG) -> None:
        repvgg.freeze(network, self.stages)


class FixedStatistics(Callback):
    """Keeps the statistics of all batch norms as they are."""

    def on_build(self, network: repvgg.RepVGG) -> None:
        repvgg.fix_statistics(network)


class EarlyStopping(Callback):
    """Ends a run whose validation top-1 has not improved for `patience` epochs."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_epoch_end(self, report: Report) -> str | None:
        progress = report.progress
        if "val_top1" not in report.line or progress.epoch - progress.best_epoch < self.patience:
            return None
        best = f"{progress.best_top1:.2%} of epoch {progress.best_epoch}"
        return f"no better than {best} for {self.patience} epochs (patience)"


LATEST_EPOCHS = 3


class TimeLimit(Callback):
    """Makes the run shorter if its epochs would take more than `seconds` from now on, by the median time of the latest
    ones: a single slow one does not count. The schedule of the learning rate is that of a run of this length."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._end, self._began = clock, clock() + seconds, clock()
        self._latest_s: list[float] = []

    def on_start(self, run: Run, progress: Progress) -> None:
        self._began = self._clock()

    def on_epoch_end(self, report: Report) -> None:
        now, progress = self._clock(), report.progress
        self._latest_s = [*self._latest_s[1 - LATEST_EPOCHS :], now - self._began]
        self._began = now
        fit = int(max(0.0, self._end - now) / median(self._latest_s))
        if progress.epoch == 1 and fit > 1:
            self._latest_s.clear()  # the first epoch also compiled the step
            return
        if progress.epoch + fit < report.run.config.epochs:
            progress.epochs = progress.epoch + fit


class CsvLog(Callback):
    """log.csv: the lines of log.jsonl as a table, a column for each figure, empty where an epoch lacks it."""

    def on_epoch_end(self, report: Report) -> None:
        if report.run.process.is_main:
            path = report.run.config.run_dir / "log.csv"
            rows: list[dict[str, object]] = []
            if path.is_file():
                with path.open(newline="", encoding="utf-8") as file:
                    rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < report.line["epoch"]]
            rows.append(dict(report.line))
            text = io.StringIO()
            writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
            write_whole(path, text.getvalue().encode())


def csv_log(config: TrainConfig) -> Callback:
    return CsvLog()


def on_build(callbacks: Sequence[Callback], network: repvgg.RepVGG) -> None:
    for callback in callbacks:
        callback.on_build(network)


def why_end(callbacks: Sequence[Callback], report: Report) -> str:
    """Tell all of them the end of an epoch -> why the run ends here, or nothing; rank 0 decides for all."""
    reasons = [reason for callback in callbacks if (reason := callback.on_epoch_end(report))]
    if not ranks.from_rank_0([bool(reasons)], report.run.process)[0]:
        return ""
    return "; ".join(reasons) or "rank 0 said so"


def build_callbacks(config: TrainConfig) -> list[Callback]:
    """Those of the recipe. Raises ConfigError that names the one which cannot be built."""
    callbacks: list[Callback] = [Freezing(config.freeze)] if config.freeze else []
    callbacks += [FixedStatistics()] if config.fixed_statistics else []
    callbacks += [EarlyStopping(config.patience)] if config.patience else []
    callbacks += [TimeLimit(60 * config.minutes)] if config.minutes else []
    for name in config.callbacks:
        try:
            callback = resolve_name(CALLBACKS.get(name, name))(config)
        except (ImportError, AttributeError, ValueError) as error:
            known = ", ".join(CALLBACKS)
            raise ConfigError(f"callbacks: {name!r} is neither {known} nor package.module:function: {error}") from error
        if not isinstance(callback, Callback):
            raise ConfigError(f"callbacks: {name} returned {callback!r}, not a training.run.callbacks.Callback")
        callbacks.append(callback)
    return callbacks
