"""Learning rate by step: pure maths, no framework."""

from __future__ import annotations

import math


def warmup_cosine(
    *, base_lr: float, warmup_lr: float, min_lr: float, warmup_steps: int, total_steps: int
) -> list[float]:
    """Learning rate of each of `total_steps` steps.

    Linear from `warmup_lr` to `base_lr` over `warmup_steps`, then half a cosine down to `min_lr`
    (SGDR without restarts, Loshchilov & Hutter 2017, eq. 5). Raises ValueError for a warm-up longer than the run.
    """
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"the warm-up of {warmup_steps} steps does not fit into {total_steps} steps")
    rising = [warmup_lr + (base_lr - warmup_lr) * step / warmup_steps for step in range(warmup_steps)]
    falling_steps = total_steps - warmup_steps
    falling = [
        min_lr + (base_lr - min_lr) * (1 + math.cos(math.pi * step / falling_steps)) / 2
        for step in range(falling_steps)
    ]
    return rising + falling
