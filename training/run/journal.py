"""The record of a run: a line an epoch in log.jsonl, and curves.png, drawn from all lines of it.

1. the log has exactly one line an epoch, however often the run was cut off;
2. both files are whole at any moment, and are known to be writable before the first epoch;
3. the time left follows from the latest epochs, those of earlier sessions too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from PIL import Image

from training.errors import TrainingError
from training.files import write_whole
from training.run import curves as charts

LATEST_EPOCHS = 5  # the time left looks at; a machine may have been busy with other things before

Line = dict[str, float]  # "epoch" counts from 1; what an epoch has no value of is not there

CURVES = {
    "loss": {"training": "loss"},
    "accuracy": {"training top-1": "train_top1", "validation top-1": "val_top1", "validation top-5": "val_top5"},
    "learning rate": {"at the end of the epoch": "lr"},
    "images per second": {"training": "images_per_second"},
}


class Journal:
    """Of the run in `folder` after `epochs_done` epochs; lines of later ones, which it does again, are dropped.

    Raises TrainingError where the folder cannot be written to or its log is none.
    """

    def __init__(self, folder: Path, epochs_done: int) -> None:
        self.log, self.picture = folder / "log.jsonl", folder / "curves.png"
        self.lines = [line for line in read(self.log) if line["epoch"] <= epochs_done]
        self._write_log()

    def add(self, line: Line, title: str) -> None:
        """Append a line and draw the curves anew. Raises TrainingError."""
        self.lines.append(line)
        self._write_log()
        charts.save(curves(title, self.lines), self.picture)

    def seconds_left(self, epochs: int) -> float:
        """Until the end of a run of so many `epochs`, of which one or more are over."""
        per_epoch = median(line["seconds"] for line in self.lines[-LATEST_EPOCHS:])
        return per_epoch * (epochs - self.lines[-1]["epoch"])

    def _write_log(self) -> None:
        write_whole(self.log, "".join(json.dumps(line) + "\n" for line in self.lines).encode())


def read(log: Path) -> list[Line]:
    """The lines of a log, none if there is no log; a last one that was cut off is left out. Raises TrainingError."""
    try:
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    except OSError as error:
        raise TrainingError(f"{log} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise TrainingError(f"{log} is not a log of one JSON object a line ({error}): mend or remove it") from error


def curves(title: str, lines: Sequence[Line]) -> Image.Image:
    """CURVES by epoch -> RGB image of 1920 x 1080."""
    drawn = []
    for name, series in CURVES.items():
        points = {label: [(line["epoch"], line[key]) for line in lines if key in line] for label, key in series.items()}
        drawn.append(charts.line_chart(f"{name}, {title}", "epoch", points))
    return charts.grid(drawn)
