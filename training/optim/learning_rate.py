"""The learning rate of each update: pure maths, no framework.

1. the warm-up rises linearly from `warmup_lr`; the update after it has `base_lr`, whatever the schedule;
2. each schedule is the closed form in its docstring, with t the progress from the warm-up to the end, 0..1;
3. there is one rate for each update of the run.

The names that a recipe may use are in training.config.choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name

from training.config import TrainConfig
from training.config.choices import SCHEDULES
from training.errors import TrainingError


@dataclass(frozen=True)
class Curve:
    """The settings of a schedule. A step is an update of the weights.

    `milestones` are epochs from the start of the run, `gamma` is the factor at each of them, `decay` the factor per
    epoch. Raises ValueError for a warm-up longer than the run.
    """

    base_lr: float
    total_steps: int
    steps_per_epoch: float
    warmup_lr: float = 0.0
    warmup_steps: int = 0
    min_lr: float = 0.0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    decay: float = 0.97
    power: float = 1.0
    cooldown_steps: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps <= self.total_steps:
            raise ValueError(
                f"the warm-up of {self.warmup_steps} steps is longer than the run of {self.total_steps} steps"
            )

    def progress(self, step: int) -> float:
        """The fraction of the steps between warm-up and end of the run that are done, 0..1."""
        return (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)


def cosine_lr(curve: Curve, step: int) -> float:
    """min + (base - min) * (1 + cos(pi * t)) / 2 (SGDR without restarts, Loshchilov & Hutter 2017, eq. 5)."""
    return curve.min_lr + (curve.base_lr - curve.min_lr) * (1 + math.cos(math.pi * curve.progress(step))) / 2


def multistep_lr(curve: Curve, step: int) -> float:
    """base * gamma ** (number of milestones passed)."""
    passed = sum(step >= round(milestone * curve.steps_per_epoch) for milestone in curve.milestones)
    return curve.base_lr * math.pow(curve.gamma, passed)


def exp_lr(curve: Curve, step: int) -> float:
    """base * decay ** (epochs since the warm-up, with fractions), but never below min."""
    epochs = (step - curve.warmup_steps) / curve.steps_per_epoch
    return max(curve.base_lr * math.pow(curve.decay, epochs), min(curve.min_lr, curve.base_lr))


def poly_lr(curve: Curve, step: int) -> float:
    """min + (base - min) * (1 - t) ** power."""
    return curve.min_lr + (curve.base_lr - curve.min_lr) * math.pow(1 - curve.progress(step), curve.power)


def wsd_lr(curve: Curve, step: int) -> float:
    """Warm-up, stable, decay: base, then over the last `cooldown_steps` min + (base - min) * (1 - t) ** power.

    Here t is the progress of the cool-down. Before it begins, the run can be extended without loss, so its length need
    not be known at the start (Haegele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training
    Durations", NeurIPS 2024).
    """
    left = min(1.0, (curve.total_steps - step) / curve.cooldown_steps) if curve.cooldown_steps else 1.0
    return curve.min_lr + (curve.base_lr - curve.min_lr) * math.pow(left, curve.power)


def constant_lr(curve: Curve, step: int) -> float:
    """base."""
    return curve.base_lr


def rates(name: str, curve: Curve) -> list[float]:
    """The learning rate of each of `total_steps` updates. Raises KeyError for an unknown schedule."""
    schedule: Callable[[Curve, int], float] = resolve_name(SCHEDULES[name])
    warmup = curve.warmup_steps
    rising = [curve.warmup_lr + (curve.base_lr - curve.warmup_lr) * step / warmup for step in range(warmup)]
    return rising + [schedule(curve, step) for step in range(warmup, curve.total_steps)]


def learning_rates(config: TrainConfig, steps_per_epoch: int) -> list[float]:
    """The learning rate of each update of a run of `steps_per_epoch` batches per epoch.

    Raises TrainingError if the run is too short for a single update.
    """
    total = config.epochs * steps_per_epoch // config.accumulate_steps
    if total == 0:
        raise TrainingError(
            f"accumulate_steps ({config.accumulate_steps}) exceeds the number of batches of the whole run"
        )
    curve = Curve(
        base_lr=config.base_lr,
        total_steps=total,
        steps_per_epoch=steps_per_epoch / config.accumulate_steps,
        warmup_lr=config.warmup_lr,
        warmup_steps=config.warmup_length * steps_per_epoch // config.accumulate_steps,
        min_lr=config.min_lr,
        milestones=config.lr_milestones,
        gamma=config.lr_gamma,
        decay=config.lr_decay,
        power=config.lr_power,
        cooldown_steps=config.cooldown_length * steps_per_epoch // config.accumulate_steps,
    )
    return rates(config.lr_scheduler, curve)
