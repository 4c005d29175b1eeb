"""Equal files, near-duplicates and groups -> which photos belong together.

A near-duplicate is found by a difference hash: of each photo, squashed to 9 x 8 grey pixels, one bit for each pixel
that is brighter than its right neighbour (64 bits). Photos whose hashes differ in at most HASH_BITS bits are compared
as 32 x 32 colour pictures, with equal mean and deviation, which distinguishes plain photos that share a hash.

1. equal files, and the same photo in another size, compression or brightness, belong together;
2. photos of the same thing do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.own.photos.collection import Photo
from training.own.photos.looking import SIDE, Look

HASH_BITS = 10
SAME = 0.97  # correlation of the small pictures: higher for copies, lower for photos of the same thing
ROWS = 512  # compared with all others at once


class Pair(NamedTuple):
    first: int
    second: int
    equal: bool  # the files, byte for byte


def pairs(looks: Sequence[Look]) -> list[Pair]:
    """The copies among photos without problems, by index; each photo with all of its copies."""
    hashes = np.array([difference_hash(look.small) for look in looks], np.uint64)
    pictures = np.stack([_standard(look.small) for look in looks])
    found = [Pair(first, second, looks[first].sha256 == looks[second].sha256) for first, second in _alike(hashes)]
    return [pair for pair in found if pair.equal or float(pictures[pair.first] @ pictures[pair.second]) > SAME]


def difference_hash(small: NDArray[np.uint8]) -> int:
    grey = np.asarray(Image.fromarray(small).convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes(), "big")


def _standard(small: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Flattened, with mean 0 and length 1; a single-coloured one is all zeros."""
    values = small.astype(np.float32).reshape(SIDE * SIDE * 3)
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


def _alike(hashes: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    for start in range(0, len(hashes), ROWS):
        bits = hashes[start : start + ROWS, None] ^ hashes[None, start:]
        counts = np.unpackbits(bits.view(np.uint8).reshape(*bits.shape, 8), axis=-1).sum(axis=-1, dtype=np.uint8)
        for row, column in np.argwhere(counts <= HASH_BITS):
            if row < column:
                yield start + int(row), start + int(column)


def groups(photos: Sequence[Photo], copies: Sequence[Pair]) -> NDArray[np.int64]:
    """(N,) a number for each photo; those that must stay together share one."""
    parents = list(range(len(photos)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    named: dict[str, int] = {}
    for index, photo in enumerate(photos):
        if photo.group is not None:
            parents[root(index)] = root(named.setdefault(photo.group, index))
    for pair in copies:
        parents[root(pair.second)] = root(pair.first)
    return np.unique([root(index) for index in range(len(photos))], return_inverse=True)[1].astype(np.int64)
