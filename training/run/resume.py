"""The state of a run in last.ckpt: how it is saved, and whether a run may resume from it.

1. a run never overwrites the files of another run, unless it resumes that run;
2. a checkpoint of another architecture, number of classes or optimizer is rejected before anything is written, and the
   error says what differs;
3. every other difference of the recipe, the classes or the images is printed, and one that changes what the run means
   is rejected unless the recipe says `resume_changed`;
4. a run can be saved at any step of an epoch, with the exact value of everything that its log line needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mindspore as ms

from training.config import TrainConfig
from training.errors import CheckpointError, ConfigError, TrainingError
from training.run.assembly import Run
from training.run.checkpoints import about, checkpoint
from training.run.checkpoints.about import About
from training.run.distributed import ranks
from training.storage import modelarts

ENTRY = "run"  # JSON, which keeps numbers exact: MindSpore would store a float as float32
# The keys that determine which parameters a run restores.
KEYS = ("arch", "num_classes", "optimizer", "accumulate_steps", "with_ema")


@dataclass
class Progress:
    """`epoch` is the number of finished epochs, `best_top1` the best result so far, after `best_epoch` epochs.

    `ended` says why the run ended before its last epoch; it is empty otherwise. `epochs` is how many epochs the run
    makes where they became fewer than the recipe's, and else 0.

    Everything else describes the current epoch: `step` batches are done, in `seconds`, with `loss_sum` and `right`
    answers. When it began, the run had made `updates` of the weights and skipped `overflows`.
    """

    epoch: int = 0
    best_top1: float = -1.0  # so that any result is better
    step: int = 0
    loss_sum: float = 0.0
    right: int = 0
    seconds: float = 0.0
    updates: int = 0
    overflows: int = 0
    best_epoch: int = 0
    ended: str = ""
    epochs: int = 0

    def add(self, loss: float, right: int, seconds: float) -> None:
        """Count one step."""
        self.step += 1
        self.loss_sum += loss
        self.right += right
        self.seconds += seconds

    def next_epoch(self, updates: int, overflows: int) -> Progress:
        """At the start of the next epoch, with the run's counts so far."""
        return Progress(
            self.epoch + 1,
            self.best_top1,
            updates=updates,
            overflows=overflows,
            best_epoch=self.best_epoch,
            epochs=self.epochs,
        )

    def __str__(self) -> str:
        return f"step {self.step} of epoch {self.epoch + 1}" if self.step else f"epoch {self.epoch}"


def find_checkpoint(config: TrainConfig) -> Path | None:
    """The checkpoint to resume from, or None for a new run.

    Raises ConfigError if a new run would overwrite the files of another one.
    """
    last = config.run_dir / "last.ckpt"
    if config.resume == "auto" and last.is_file():
        return last
    if isinstance(config.resume, Path) and config.resume.absolute() == last.absolute():
        return last
    if config.resume == "auto" and (older := config.save_dir / config.arch / "last.ckpt").is_file():
        print(f"{older} is not resumed: to resume it, give --name {config.arch} (folders were named so before)")
    files = [config.run_dir / name for name in ("last.ckpt", "best.ckpt", "log.jsonl")]
    if kept := [path.name for path in files if path.is_file() and path.stat().st_size]:
        resume = "resume it (--resume auto), or " if "last.ckpt" in kept else ""
        raise ConfigError(
            f"{config.run_dir} holds {', '.join(kept)} of another run, which would be overwritten: "
            f"{resume}choose another --name"
        )
    return config.resume if isinstance(config.resume, Path) else None


def save_run(run: Run, progress: Progress) -> None:
    """Save last.ckpt; every rank must call this at the same step.

    The statistics of batch norms and partly accumulated gradients become their means over all ranks.
    """
    ranks.average(run.parameters.values(), run.process)
    if run.process.is_main:
        save(run.config.run_dir / "last.ckpt", run.parameters, progress, run.config, run.steps, run.about)
        _upload(run.config)
    ranks.barrier(run.process)  # the launcher ends all ranks when the first one exits, which may happen right after


def _upload(config: TrainConfig) -> None:
    """Copy the run to `train_url`. A failed upload is only reported: it must not end the training."""
    if config.train_url:
        try:
            modelarts.keep_run(config.run_dir, config.train_url)
        except TrainingError as error:
            print(f"{error}; trying again at the next save and at the end of the run", flush=True)


def save(
    path: Path,
    parameters: Mapping[str, ms.Parameter],
    progress: Progress,
    config: TrainConfig,
    steps: int,
    said: About | None = None,
) -> None:
    """Write the state of a run of `steps` batches per epoch. Raises CheckpointError."""
    entries = {ENTRY: json.dumps(_fixed_settings(config, steps) | asdict(progress))}
    checkpoint.save(path, parameters, entries | (said.entry if said else {}))


def restore(
    path: Path, parameters: Mapping[str, ms.Parameter], config: TrainConfig, steps: int, said: About | None = None
) -> Progress:
    """Load a saved run into `parameters`; `said` is what this run says about itself.

    Prints what differs. Raises CheckpointError for what cannot be restored, and for a change of what the run means
    unless the recipe says `resume_changed`.
    """
    saved = checkpoint.read(path)
    before = about.parse(saved, path)
    saved.pop(about.ENTRY, None)
    if ENTRY not in saved:
        raise CheckpointError(
            f"{path} holds weights but no run to resume; to start from the weights: --resume none --pretrained {path}"
        )
    entry = json.loads(str(saved.pop(ENTRY)))
    expected = _fixed_settings(config, steps)
    found = {key: entry.pop(key) for key in expected}
    if different := [key for key in expected if found[key] != expected[key]]:
        saved_values, values = (", ".join(f"{key} {values[key]}" for key in different) for values in (found, expected))
        raise CheckpointError(
            f"{path} belongs to a run with {saved_values}, this run has {values}: use the checkpoint's values, or "
            "start a new run with another --name"
        )
    changes = _changes(before, said, config, path)
    checkpoint.restore(parameters, saved, source=path)
    progress = Progress(**entry)
    if changes:
        progress.ended = ""
    if any(change.what in about.MEASURED for change in changes):  # the best result so far has another meaning
        progress.best_top1, progress.best_epoch = Progress.best_top1, progress.epoch
    return progress


def _changes(before: About | None, said: About | None, config: TrainConfig, path: Path) -> list[about.Change]:
    """What differs from the run in `path`, printed. Raises CheckpointError as `restore` does."""
    if before is None or said is None:
        print(f"{path} does not hold its recipe (an older version wrote it): only {', '.join(KEYS)} are compared")
        return []
    changes = before.changes(said)
    lines = "".join(f"\n  {change}" for change in changes if change.matters)
    if lines and not config.resume_changed:
        raise CheckpointError(
            f"{path} belongs to a run with another meaning:{lines}\n"
            "continue with the changes (--resume_changed True), undo them, or start a run of another --name"
        )
    for change in changes:
        print(f"resuming with a change of {change}")
    return changes


def _fixed_settings(config: TrainConfig, steps: int) -> dict[str, Any]:
    """What a resumed run must not change; `steps` because the schedule and the position in an epoch count in them."""
    return {key: getattr(config, key) for key in KEYS} | {"steps_per_epoch": steps}
