"""Event files that TensorBoard reads: the figures of log.jsonl by epoch.

A resumed run tells TensorBoard to forget what an earlier file says about the epochs that it repeats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.config import TrainConfig
from training.errors import ConfigError, TrainingError
from training.run.assembly import Run
from training.run.callbacks import Callback, Report
from training.run.resume import Progress

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class TensorBoard(Callback):
    """events.out.tfevents.* in the run's folder, one for each process that trains it."""

    def __init__(self) -> None:
        self.writer: SummaryWriter | None = None

    def on_start(self, run: Run, progress: Progress) -> None:
        from tensorboardX import SummaryWriter

        if run.process.is_main:
            try:
                self.writer = SummaryWriter(str(run.config.run_dir), purge_step=progress.epoch + 1)
            except OSError as error:
                raise TrainingError(f"{run.config.run_dir} cannot be written: {error.strerror}") from error

    def on_epoch_end(self, report: Report) -> None:
        if self.writer:
            for name, value in report.line.items():
                if name != "epoch":
                    self.writer.add_scalar(name, value, int(report.line["epoch"]))
            self.writer.flush()

    def on_end(self, run: Run) -> None:
        if self.writer:
            self.writer.close()


def tensorboard(config: TrainConfig) -> Callback:
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise ConfigError("callbacks: tensorboard needs tensorboardX: pip install 'repvgg[tensorboard]'") from error
    return TensorBoard()
