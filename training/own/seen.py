"""The usable photos, and what is known about them before anything is fitted.

1. broken files are left out and named;
2. copies of a photo, and photos of a group, are on one side: in one fold, and never used for both fitting and judging;
3. a given val or test split is used for judging, and never for fitting.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.manifest import Preprocess
from models.preprocess import at_size
from training.data.layouts.tables import Split
from training.data.names import listed
from training.errors import DataError
from training.own import sizes
from training.own.backbone import Backbone, Floats
from training.own.classifier import folds, head
from training.own.photos.collection import Collection, Photo
from training.own.photos.duplicates import Pair, groups, pairs
from training.own.photos.looking import Look, look

LEAST = 2  # photos of a class, or groups of them: one for fitting while the other is held out


@dataclass(frozen=True)
class Seen:
    """`broken`: file and what is wrong with it. `features` (N, C) at `size` pixels; `compared`: size -> (accuracy,
    surprise) under cross-validation, if sizes were compared."""

    source: Path
    photos: tuple[Photo, ...]
    looks: tuple[Look, ...]
    broken: tuple[tuple[Photo, str], ...]
    copies: tuple[Pair, ...]
    classes: tuple[str, ...]
    groups: head.Ids
    size: int
    compared: dict[int, tuple[float, float]]

    @property
    def labels(self) -> head.Ids:
        return head.of_ids((photo.label for photo in self.photos), self.classes)

    @property
    def features(self) -> Floats:
        return np.stack([one.features[self.size] for one in self.looks])

    @property
    def leaks(self) -> list[Pair]:
        """Copies in different splits."""
        sides = [photo.split or "train" for photo in self.photos]
        return [pair for pair in self.copies if sides[pair.first] != sides[pair.second]]

    @property
    def judged_by(self) -> Split | None:
        """The split whose photos are held out from everything; None: cross-validation is used instead."""
        have = {photo.split for photo in self.photos}
        return "test" if "test" in have else "val" if "val" in have else None

    @property
    def judged(self) -> NDArray[np.bool_]:
        """(N,) the photos that the accuracy is measured on."""
        return np.array([self.judged_by in (None, photo.split) for photo in self.photos])

    @property
    def fitted(self) -> NDArray[np.bool_]:
        """(N,) the photos used for fitting: those of train, without the copies and groups of photos in other splits."""
        train = np.array([photo.split in (None, "train") for photo in self.photos])
        return train & ~np.isin(self.groups, self.groups[~train])


def see(collection: Collection, backbone: Backbone, spec: Preprocess, *, seed: int, seconds: float) -> Seen:
    """Look at all photos, and choose the image size. `seconds`: the time limit for features. Raises DataError."""
    photos = collection.photos
    first = sizes.sample([photo.label for photo in photos], seed)
    tried = sizes.candidates(backbone, spec, len(photos), seconds)
    looks: dict[int, Look] = {}

    def look_at(indices: list[int], wanted: list[int], title: str) -> None:
        specs = [at_size(spec, size) for size in wanted]
        found = look([photos[index].path for index in indices], specs, backbone.compute, title)
        looks.update(zip(indices, found, strict=True))

    look_at(first, tried, "look")
    chosen, compared = _compare(collection, looks, tried, seed)
    rest = [index for index in range(len(photos)) if index not in looks]
    look_at(rest, [chosen], "look at the rest")
    return _usable(collection, [looks[index] for index in range(len(photos))], chosen, compared)


def _compare(
    collection: Collection, looks: dict[int, Look], tried: list[int], seed: int
) -> tuple[int, dict[int, tuple[float, float]]]:
    """-> the chosen size, and accuracy and surprise at each; the first, without figures, if nothing can be compared."""
    usable = [index for index, one in looks.items() if one.problem is None]
    counts = dict.fromkeys(collection.classes, 0)
    for index in usable:
        counts[collection.photos[index].label] += 1
    usable = [index for index in usable if counts[collection.photos[index].label] >= LEAST]
    classes = tuple(sorted({collection.photos[index].label for index in usable}))
    if len(classes) < 2 or len(tried) < 2:
        return tried[0], {}
    photos = [collection.photos[index] for index in usable]
    labels = head.of_ids((photo.label for photo in photos), classes)
    together = groups(photos, pairs([looks[index] for index in usable]))
    if (folds.enough(labels, together) < LEAST).any():
        return tried[0], {}
    parts = folds.assign(labels, together, folds.count(labels, together), seed)
    surprises, figures = {}, {}
    for size in tried:
        rows = np.stack([looks[index].features[size] for index in usable])
        logits = head.cross_validate(rows, labels, parts, balanced=head.is_uneven(labels)).logits
        surprises[size] = head.surprises(logits, labels)
        figures[size] = float((logits.argmax(axis=1) == labels).mean()), float(surprises[size].mean())
    return sizes.choose(surprises), figures


def _usable(
    collection: Collection,
    looks: list[Look],
    size: int,
    compared: dict[int, tuple[float, float]],
) -> Seen:
    pairs_of = list(zip(collection.photos, looks, strict=True))
    good = [(photo, one) for photo, one in pairs_of if one.problem is None]
    broken = tuple((photo, one.problem) for photo, one in pairs_of if one.problem is not None)
    if not good:
        raise DataError(f"{collection.source}: none of {len(broken)} photos can be read: {broken[0][1]}")
    photos, kept = [photo for photo, _ in good], [one for _, one in good]
    copies = tuple(pairs(kept))
    together = groups(photos, copies)
    return Seen(
        collection.source, tuple(photos), tuple(kept), broken, copies, collection.classes, together, size, compared
    )


def check_enough(seen: Seen) -> None:
    """Raises DataError unless each class can be fitted and judged."""
    if len(seen.photos) > 1 and len(set(seen.groups.tolist())) == 1:
        raise DataError(f"{seen.source}: all {len(seen.photos)} photos are copies of one picture")
    fitted = seen.fitted
    have = np.zeros(len(seen.classes), np.int64)
    if fitted.any():
        found = folds.enough(seen.labels[fitted], seen.groups[fitted])
        have[: len(found)] = found
    if (have < LEAST).any():
        poor = [f"{name} ({count})" for name, count in zip(seen.classes, have, strict=True) if count < LEAST]
        raise DataError(
            f"{seen.source}: each class needs at least {LEAST} different photos to fit on, copies counted once; "
            f"too few: {listed(poor)}"
        )
