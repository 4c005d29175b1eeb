"""The choice of the image size: a small network gains from more pixels than it was trained with.

1. sizes of one to three times the bundle's are compared, fewer for larger bundles, as far as its strides divide them
   and time allows;
2. a larger size must be better by more than the standard error of the difference: every request pays for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from models.manifest import Preprocess
from training.own.backbone import Backbone
from training.own.photos.looking import cpus

# Up to so many pixels of the bundle -> factors on them. The cost grows with their square, and what is gained shrinks:
# networks of 224 pixels are at their best a third above that (Touvron et al. 2019, "Fixing the train-test resolution
# discrepancy").
FACTORS = {64: (1.0, 1.5, 2.0, 3.0), 128: (1.0, 1.5, 2.0), 10_000: (1.0, 9 / 7)}
TRIALS = 5
SAMPLE = 400  # photos that sizes are compared on


def candidates(backbone: Backbone, spec: Preprocess, photos: int, seconds: float) -> list[int]:
    """Sizes in pixels, the bundle's own first, whose features of all photos take at most `seconds`."""
    own = spec.input_size
    factors = next(factors for most, factors in FACTORS.items() if own <= most)
    wanted = [round(own * factor / backbone.stride) * backbone.stride for factor in factors]
    each = seconds_each(backbone, own)

    def cost(size: int) -> float:
        return (min(photos, SAMPLE) * sum(one**2 for one in wanted if one <= size) + photos * size**2) * each / own**2

    return [own, *(size for size in wanted if size > own and cost(size) <= seconds)]


def seconds_each(backbone: Backbone, size: int) -> float:
    """The time for the features of an image, with all CPUs busy: the median of a few."""
    zeros, times = np.zeros((1, 3, size, size), np.float32), []
    for _ in range(TRIALS + 1):
        start = time.perf_counter()
        backbone.compute(zeros)
        times.append(time.perf_counter() - start)
    return median(times[1:]) / cpus()  # the first also allocates


def choose(surprises: Mapping[int, NDArray[np.float64]]) -> int:
    """Size -> the surprise at each photo's label under cross-validation; the smallest size that is as good as the best,
    within one standard error."""
    best = min(surprises, key=lambda size: float(surprises[size].mean()))

    def as_good(size: int) -> bool:
        worse = surprises[size] - surprises[best]
        return bool(worse.mean() <= worse.std() / np.sqrt(len(worse)))

    return min(size for size in surprises if as_good(size))


def sample(labels: Sequence[str], seed: int) -> list[int]:
    """At most SAMPLE indices, in proportion to the classes."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(np.asarray(labels)[order], kind="stable")]
    return sorted(int(index) for index in order[:: -(-len(order) // SAMPLE)])
