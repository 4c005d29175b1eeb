"""What a run remembers of itself in last.ckpt, and whether it may go on from a checkpoint.

1. a run is never written over by another one unless that goes on with it;
2. a checkpoint of another architecture, number of classes or optimizer is refused in words, before anything is
   written;
3. a run is saved at any step of an epoch, with everything that its log line needs, to the last bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mindspore as ms

from training.config import TrainConfig
from training.errors import CheckpointError, ConfigError
from training.run import checkpoint

ENTRY = "run"  # JSON, in which numbers stay exact; MindSpore keeps a float as float32
KEYS = ("arch", "num_classes", "optimizer", "accumulate_steps", "with_ema")  # they decide what a run has to restore


@dataclass
class Progress:
    """`epoch` counts finished ones. All but it and `best_top1` are of the epoch that is under way.

    `step` batches of it are done, in `seconds`, with the sum of their losses and `right` answers; it began with
    `updates` of the weights made and `overflows` skipped.
    """

    epoch: int = 0
    best_top1: float = -1.0  # any result is better
    step: int = 0
    loss_sum: float = 0.0
    right: int = 0
    seconds: float = 0.0
    updates: int = 0
    overflows: int = 0

    def add(self, loss: float, right: int, seconds: float) -> None:
        """Count a step."""
        self.step += 1
        self.loss_sum += loss
        self.right += right
        self.seconds += seconds

    def __str__(self) -> str:
        return f"step {self.step} of epoch {self.epoch + 1}" if self.step else f"epoch {self.epoch}"


def source(config: TrainConfig) -> Path | None:
    """The checkpoint to go on from; none where the run starts afresh.

    Raises ConfigError where a run that is not to be gone on with would be written over.
    """
    last = config.run_dir / "last.ckpt"
    if config.resume == "auto" and last.is_file():
        return last
    if isinstance(config.resume, Path) and config.resume.absolute() == last.absolute():
        return last
    files = [config.run_dir / name for name in ("last.ckpt", "best.ckpt", "log.jsonl")]
    if kept := [path.name for path in files if path.is_file() and path.stat().st_size]:
        go_on = "go on with it (--resume auto), or " if "last.ckpt" in kept else ""
        raise ConfigError(
            f"{config.run_dir} holds {', '.join(kept)} of another run, which would be written over: "
            f"{go_on}choose another --save_dir"
        )
    return config.resume if isinstance(config.resume, Path) else None


def save(
    path: Path, parameters: Mapping[str, ms.Parameter], progress: Progress, config: TrainConfig, steps: int
) -> None:
    """Write a run of `steps` batches an epoch. Raises CheckpointError."""
    checkpoint.save(path, parameters, {ENTRY: json.dumps(_identity(config, steps) | asdict(progress))})


def restore(path: Path, parameters: Mapping[str, ms.Parameter], config: TrainConfig, steps: int) -> Progress:
    """Put a saved run into `parameters`. Raises CheckpointError that says what the checkpoint is of."""
    saved = checkpoint.read(path)
    if ENTRY not in saved:
        raise CheckpointError(
            f"{path} holds weights, but no run to go on with; start from them: --resume none --pretrained {path}"
        )
    entry = json.loads(str(saved.pop(ENTRY)))
    wanted = _identity(config, steps)
    found = {key: entry.pop(key) for key in wanted}
    if other := [key for key in wanted if found[key] != wanted[key]]:
        there, here = (", ".join(f"{key} {values[key]}" for key in other) for values in (found, wanted))
        raise CheckpointError(
            f"{path} is of a run with {there}; this one has {here}: give it what the checkpoint has, or start afresh "
            "with --resume none and another --save_dir"
        )
    checkpoint.restore(parameters, saved, source=path)
    return Progress(**entry)


def _identity(config: TrainConfig, steps: int) -> dict[str, Any]:
    """What must not change; `steps` because the schedule counts them, and the place in an epoch."""
    return {key: getattr(config, key) for key in KEYS} | {"steps_per_epoch": steps}
