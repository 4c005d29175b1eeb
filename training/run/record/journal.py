"""The record of a run: one line per epoch in log.jsonl, and curves.png, drawn from all of them.

1. the log has exactly one line per epoch, however often the run was interrupted;
2. both files are whole at any moment, and an unwritable folder is reported before the first epoch;
3. the time left is estimated from the latest epochs, including those before an interruption;
4. without matplotlib a run says once at its start that there will be no curves.png, and continues;
5. short epochs are not slowed down by their curves, which are drawn every ten seconds at most.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from models import charts
from training.errors import TrainingError
from training.run.record import curves
from training.storage.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REDRAW_S = 10  # drawing takes half a second of CPU
LATEST_EPOCHS = 5  # for the time left; earlier the machine may have been busy with other things

Line = dict[str, float]  # "epoch" counts from 1; a value that an epoch does not have is left out

# Title, unit, and what each line shows: its name, its key in the log, and the factor that gives the unit.
CURVES = (
    ("Loss", "mean per image", (("training", "loss", 1.0),)),
    (
        "Accuracy",
        "images (%)",
        (
            ("training top-1", "train_top1", 100.0),
            ("validation top-1", "val_top1", 100.0),
            ("validation top-5", "val_top5", 100.0),
        ),
    ),
    ("Learning rate", "learning rate", (("at the end of the epoch", "lr", 1.0),)),
    ("Speed", "images per second", (("training", "images_per_second", 1.0),)),
)


class Journal:
    """The record in `folder` of a run that has finished `epochs_done` epochs; lines of later epochs are dropped, since
    the run repeats them.

    Raises TrainingError if the folder cannot be written to, or if its log cannot be read.
    """

    def __init__(self, folder: Path, epochs_done: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.log, self.picture = folder / "log.jsonl", folder / "curves.png"
        self.lines = [line for line in read(self.log) if line["epoch"] <= epochs_done]
        self._clock, self._drawn_s = clock, clock()
        self._undrawn = ""  # the title of the curves while they lack an epoch
        self._draws = charts.is_installed()
        if not self._draws:
            print(curves.NO_CURVES, flush=True)
        self._write_log()

    def add(self, line: Line, title: str) -> None:
        """Append a line, and redraw the curves if that was long ago. Raises TrainingError."""
        self.lines.append(line)
        self._write_log()
        self._undrawn = title
        if self._clock() - self._drawn_s >= REDRAW_S:
            self.complete_curves()

    def complete_curves(self) -> None:
        """Redraw the curves if they lack an epoch. Raises TrainingError."""
        if self._draws and self._undrawn:
            curves.save(draw(self._undrawn, self.lines), self.picture)
            self._undrawn, self._drawn_s = "", self._clock()

    def seconds_left(self, epochs: int) -> float:
        """Until the end of a run of `epochs` epochs, at least one of which is over."""
        per_epoch = median(line["seconds"] for line in self.lines[-LATEST_EPOCHS:])
        return per_epoch * (epochs - self.lines[-1]["epoch"])

    def _write_log(self) -> None:
        write_whole(self.log, "".join(json.dumps(line) + "\n" for line in self.lines).encode())


def read(log: Path) -> list[Line]:
    """The lines of a log; none if there is no log. A truncated last line is ignored. Raises TrainingError."""
    try:
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    except OSError as error:
        raise TrainingError(f"{log} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise TrainingError(
            f"{log} is not a log with one JSON object per line ({error}): repair or remove it"
        ) from error


def draw(title: str, lines: Sequence[Line]) -> Figure:
    """CURVES by epoch."""
    drawn = []
    for name, unit, series in CURVES:
        points = {
            label: [(line["epoch"], factor * line[key]) for line in lines if key in line]
            for label, key, factor in series
        }
        drawn.append(curves.Chart(name, unit, points))
    return curves.draw(title, "epoch", drawn)
