"""The augmentations that need a whole batch, in numpy: AugMix's mixture, RandomErasing, MixUp and CutMix.

1. soft targets are the classes' shares of the pixels: each row sums to 1;
2. an erased rectangle has the area and the aspect of the paper, whatever the mode;
3. the same random generator gives the same batch.

RandomErasing: Zhong et al., AAAI 2020, arXiv:1708.04896. MixUp: Zhang et al., ICLR 2018, arXiv:1710.09412. CutMix: Yun
et al., ICCV 2019, arXiv:1905.04899. The modes, and how the two are combined, follow timm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig

Floats = NDArray[np.float32]
Box = tuple[slice, slice]  # rows, columns

ERASED_AREA = (0.02, 0.4)  # share of the image
ERASED_ASPECT = (0.3, 1 / 0.3)  # height / width
_ATTEMPTS = 10  # to find a rectangle that fits; otherwise the image is left as it is


def mix_chains(images: Floats, chains: Floats, alpha: float, rng: np.random.Generator) -> Floats:
    """images (B, 3, S, S), chains (W, B, 3, S, S) -> AugMix: (1 - m) image + m * sum of weighted chains."""
    width, count = chains.shape[:2]
    weights = rng.dirichlet([alpha] * width, count).astype(np.float32)
    share = rng.beta(alpha, alpha, (count, 1, 1, 1)).astype(np.float32)
    mixture: Floats = np.einsum("bw,wbchs->bchs", weights, chains)
    return images + share * (mixture - images)


def erase(
    images: Floats, probability: float, mode: Literal["const", "rand", "pixel"], count: int, rng: np.random.Generator
) -> None:
    """Fill 1..count random rectangles in place, in each of the normalised images (B, 3, S, S) that is drawn.

    const: 0, the mean colour; rand: a colour drawn from N(0, 1); pixel: each value from N(0, 1).
    """
    for row in np.flatnonzero(rng.random(len(images)) < probability):
        rectangles = int(rng.integers(1, count + 1))
        for _ in range(rectangles):
            _erase_one(images[row], mode, rectangles, rng)


def _erase_one(image: Floats, mode: str, rectangles: int, rng: np.random.Generator) -> None:
    box = erased_box(image.shape[1], image.shape[2], rectangles, rng)
    if box is None:
        return
    hole = image[:, box[0], box[1]]
    if mode == "const":
        hole[:] = 0.0
    else:
        hole[:] = rng.standard_normal((3, 1, 1) if mode == "rand" else hole.shape, np.float32)


def cut_out(images: Floats, side: int, rng: np.random.Generator) -> None:
    """Fill a square with 0, the mean colour, in place in each of the images (B, 3, S, S); its centre is anywhere in the
    image, and what lies outside is lost (DeVries & Taylor 2017, arXiv:1708.04552)."""
    for image in images:
        rows, columns = (
            slice(max(0, start), max(0, start + side))
            for start in (int(rng.integers(size)) - side // 2 for size in image.shape[1:])
        )
        image[:, rows, columns] = 0.0


def erased_box(height: int, width: int, rectangles: int, rng: np.random.Generator) -> Box | None:
    """A rectangle of ERASED_AREA / rectangles and ERASED_ASPECT inside the image, or None if none was found."""
    low, high = (math.log(aspect) for aspect in ERASED_ASPECT)
    for _ in range(_ATTEMPTS):
        area = rng.uniform(*ERASED_AREA) * height * width / rectangles
        aspect = math.exp(rng.uniform(low, high))
        down, across = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < down < height and 0 < across < width:
            top, left = int(rng.integers(0, height - down + 1)), int(rng.integers(0, width - across + 1))
            return slice(top, top + down), slice(left, left + across)
    return None


@dataclass(frozen=True)
class Mixing:
    """The keys mix_up, cutmix, mixup_prob, switch_prob and mixup_mode."""

    mix_up: float
    cutmix: float
    probability: float
    switch: float
    mode: Literal["batch", "elem", "pair"]

    @property
    def on(self) -> bool:
        return (self.mix_up > 0 or self.cutmix > 0) and self.probability > 0

    def __call__(
        self, images: Floats, labels: NDArray[Any], num_classes: int, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """images (B, 3, S, S), labels (B,) or (B, K) -> mixed images, targets (B, K). Image i is mixed with image
        B - 1 - i."""
        draws = self._draws(len(images), images.shape[2], images.shape[3], rng)
        kept = np.array([draw.kept for draw in draws], np.float32)
        blend = np.array([1.0 if draw.box else draw.kept for draw in draws], np.float32)[:, None, None, None]
        partners = images[::-1]
        mixed = images.copy() if (blend == 1).all() else blend * images + (1 - blend) * partners
        for row, draw in enumerate(draws):
            if draw.box:
                mixed[row][:, draw.box[0], draw.box[1]] = partners[row][:, draw.box[0], draw.box[1]]
        hard = labels if labels.ndim == 2 else np.eye(num_classes, dtype=np.float32)[labels]
        return mixed, kept[:, None] * hard + (1 - kept[:, None]) * hard[::-1]

    def _draws(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[_Draw]:
        """One for each row: shared by all rows, by none, or by the two of a pair."""
        rows = np.arange(count)
        group = {"batch": np.zeros_like(rows), "elem": rows, "pair": np.minimum(rows, rows[::-1])}[self.mode]
        drawn = [self._draw(height, width, rng) for _ in range(int(group.max()) + 1)]
        return [drawn[index] for index in group]

    def _draw(self, height: int, width: int, rng: np.random.Generator) -> _Draw:
        if rng.random() >= self.probability:
            return _Draw(1.0, None)
        cut = self.cutmix > 0 and (self.mix_up == 0 or rng.random() < self.switch)
        if not cut:
            return _Draw(float(rng.beta(self.mix_up, self.mix_up)), None)
        box = cut_box(height, width, float(rng.beta(self.cutmix, self.cutmix)), rng)
        pasted = (box[0].stop - box[0].start) * (box[1].stop - box[1].start)
        return _Draw(1.0 - pasted / (height * width), box)


@dataclass(frozen=True)
class _Draw:
    """`kept` is the image's own share. Its partner's pixels fill `box`, or are blended in where that is None."""

    kept: float
    box: Box | None


def cut_box(height: int, width: int, kept: float, rng: np.random.Generator) -> Box:
    """CutMix's rectangle: 1 - kept of the area, around a uniformly drawn centre, clipped at the border."""
    ratio = math.sqrt(1.0 - kept)
    sides = []
    for size in (height, width):
        half, centre = int(size * ratio) // 2, int(rng.integers(0, size))
        sides.append(slice(max(centre - half, 0), min(centre + half, size)))
    return sides[0], sides[1]


class BatchChanges:
    """All augmentations of a batch in order, as a batch function for MindData; (seed, batch number) fix the draws."""

    def __init__(self, config: TrainConfig, augmix_alpha: float | None, seed: tuple[int, ...]) -> None:
        self._config, self._alpha, self._seed = config, augmix_alpha, seed
        self._mixing = Mixing(config.mix_up, config.cutmix, config.mixup_prob, config.switch_prob, config.mixup_mode)
        self.any = self._alpha is not None or config.re_prob > 0 or config.cutout > 0 or self._mixing.on

    def __call__(self, *columns: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Lists of images, labels and images of each chain, then MindData's description of the batch.

        -> images float32 (B, 3, S, S), labels int32 (B,) or, if they are mixed, float32 (B, K).
        """
        *rows, batch = columns
        images, labels = np.stack(rows[0]), np.stack(rows[1])
        config, rng = self._config, np.random.default_rng((*self._seed, batch.get_batch_num()))
        if self._alpha is not None:
            images = mix_chains(images, np.stack([np.stack(chain) for chain in rows[2:]]), self._alpha, rng)
        erase(images, config.re_prob, config.re_mode, config.re_count, rng)
        if config.cutout:
            cut_out(images, config.cutout, rng)
        if self._mixing.on:
            return self._mixing(images, labels, config.classes, rng)
        return images, labels
