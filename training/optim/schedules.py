"""Learning rate by step: pure maths, no framework.

1. the warm-up rises linearly from `warmup_lr`; the step after it has `base_lr`, whatever the schedule;
2. each schedule is the closed form in its docstring;
3. there is one rate for each update of the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from training.config import TrainConfig
from training.errors import TrainingError


@dataclass(frozen=True)
class Curve:
    """What a schedule is made of; `warmup_steps`, `cooldown_steps` and `total_steps` count updates of the weights.

    `milestones` are epochs from the start of the run, `gamma` is the factor at each, `decay` the factor an epoch.
    Raises ValueError for a warm-up longer than the run.
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
            raise ValueError(f"the warm-up of {self.warmup_steps} steps does not fit into {self.total_steps} steps")

    def progress(self, step: int) -> float:
        """Share of the way from the end of the warm-up to the end of the run, 0..1."""
        return (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)


def cosine_lr(curve: Curve, step: int) -> float:
    """min + (base - min) * (1 + cos(pi * t)) / 2 (SGDR without restarts, Loshchilov & Hutter 2017, eq. 5)."""
    return curve.min_lr + (curve.base_lr - curve.min_lr) * (1 + math.cos(math.pi * curve.progress(step))) / 2


def multistep_lr(curve: Curve, step: int) -> float:
    """base * gamma ** (milestones that have passed)."""
    passed = sum(step >= round(milestone * curve.steps_per_epoch) for milestone in curve.milestones)
    return curve.base_lr * math.pow(curve.gamma, passed)


def exp_lr(curve: Curve, step: int) -> float:
    """base * decay ** (epochs since the warm-up, counted in fractions), never below min."""
    epochs = (step - curve.warmup_steps) / curve.steps_per_epoch
    return max(curve.base_lr * math.pow(curve.decay, epochs), min(curve.min_lr, curve.base_lr))


def poly_lr(curve: Curve, step: int) -> float:
    """min + (base - min) * (1 - t) ** power."""
    return curve.min_lr + (curve.base_lr - curve.min_lr) * math.pow(1 - curve.progress(step), curve.power)


def wsd_lr(curve: Curve, step: int) -> float:
    """Warm-up, stable, decay: base, and over the last `cooldown_steps` min + (base - min) * (1 - t) ** power.

    t is the share of the cool-down that is done. Until it begins the run may be made longer at no loss: the length
    need not be known at the start (Haegele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training
    Durations", NeurIPS 2024).
    """
    left = min(1.0, (curve.total_steps - step) / curve.cooldown_steps) if curve.cooldown_steps else 1.0
    return curve.min_lr + (curve.base_lr - curve.min_lr) * math.pow(left, curve.power)


def constant_lr(curve: Curve, step: int) -> float:
    """base."""
    return curve.base_lr


SCHEDULES: dict[str, Callable[[Curve, int], float]] = {
    "cosine_lr": cosine_lr,
    "multistep_lr": multistep_lr,
    "exp_lr": exp_lr,
    "poly_lr": poly_lr,
    "wsd_lr": wsd_lr,
    "constant_lr": constant_lr,
}


def rates(name: str, curve: Curve) -> list[float]:
    """Learning rate of each of `total_steps` updates; raises KeyError for an unknown schedule."""
    schedule, warmup = SCHEDULES[name], curve.warmup_steps
    rising = [curve.warmup_lr + (curve.base_lr - curve.warmup_lr) * step / warmup for step in range(warmup)]
    return rising + [schedule(curve, step) for step in range(warmup, curve.total_steps)]


def learning_rates(config: TrainConfig, steps_per_epoch: int) -> list[float]:
    """Learning rate of each update of a run of `steps_per_epoch` batches an epoch.

    Raises TrainingError for a run too short to update the weights once.
    """
    total = config.epochs * steps_per_epoch // config.accumulate_steps
    if total == 0:
        raise TrainingError(f"accumulate_steps ({config.accumulate_steps}) is more than the batches of the whole run")
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
