"""Sizes of the training images by epoch: `0:48,8:64` is 48 pixels from epoch 0 and 64 from epoch 8, counted from 0.

Small images cost less, and most of what a network learns first can be seen in them: Tan & Le, "EfficientNetV2: Smaller
Models and Faster Training", ICML 2021, section 4.
"""

from __future__ import annotations

import re

FORM = re.compile(r"\s*([0-9]{1,6})\s*:\s*([0-9]{1,5})\s*")


def parse(text: str) -> tuple[tuple[int, int], ...]:
    """-> pairs of an epoch and the size from then on. Raises ValueError for anything else."""
    matches = [FORM.fullmatch(part) for part in text.split(",")]
    pairs = tuple((int(match[1]), int(match[2])) for match in matches if match)
    epochs = [epoch for epoch, _ in pairs]
    if len(pairs) < len(matches) or epochs[0] != 0 or epochs != sorted({*epochs}) or not all(size for _, size in pairs):
        raise ValueError(
            f"image_sizes {text!r} must be pairs EPOCH:PIXELS that begin with epoch 0 and rise, as in 0:48,8:64"
        )
    return pairs


def check(text: str, epochs: int) -> None:
    """Raises ValueError for a size that a run of `epochs` never reaches, and as `parse` does."""
    if (last := parse(text)[-1][0]) >= epochs:
        raise ValueError(f"image_sizes {text!r}: epoch {last} is never reached, epochs is {epochs} and counts from 0")


def size_at(text: str, epoch: int) -> int:
    """The size in an epoch, counted from 0."""
    return next(size for start, size in reversed(parse(text)) if start <= epoch)


def spans(text: str, epochs: int) -> dict[int, int]:
    """The first epoch of each size -> how many epochs it lasts, in a run of `epochs`."""
    starts = [epoch for epoch, _ in parse(text)]
    return {start: end - start for start, end in zip(starts, [*starts[1:], epochs], strict=True)}
