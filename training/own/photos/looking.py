"""One look at each photo: its problems, its appearance, and its features.

1. a photo is read and decoded once, for everything that is needed;
2. a file that cannot be used is a problem to report, never the end of the run;
3. features come from the tensor that the service will make from the photo.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from models.errors import ImageError
from models.manifest import Preprocess
from models.pixels.color import to_srgb
from models.preprocess import open_image, read_file, read_pixels, to_tensor

SHOWN = 144  # pixels, of a thumbnail's longer side
SIDE = 32  # pixels, of the small copy that near-duplicates are found with

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """`problem`: why the file cannot be used; then nothing else is known. `small`: uint8 (SIDE, SIDE, 3), squashed;
    `thumbnail`: a JPEG to show; `brightness` 0..1; `features` by image size in pixels."""

    problem: str | None = None
    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    brightness: float = 0.0
    small: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((SIDE, SIDE, 3), np.uint8), repr=False)
    thumbnail: bytes = field(default=b"", repr=False)
    features: dict[int, Features] = field(default_factory=dict, repr=False)


def look(
    paths: Sequence[Path], specs: Sequence[Preprocess], compute: Callable[[Features], Features], title: str
) -> list[Look]:
    """Look at each file; `compute` turns a float32 (1, 3, S, S) tensor into features (1, C), for each of `specs`."""
    pool = ThreadPoolExecutor(cpus())
    try:
        looks = pool.map(lambda path: _look(path, specs, compute), paths)
        return list(tqdm(looks, title, len(paths), leave=False, disable=None))
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C as well, which would otherwise wait for all of them


def cpus() -> int:
    return len(os.sched_getaffinity(0))


def _look(path: Path, specs: Sequence[Preprocess], compute: Callable[[Features], Features]) -> Look:
    try:
        encoded = read_file(path)
        image = open_image(encoded)
        picture = read_pixels(image, icc=specs[0].icc)
        features = {spec.input_size: compute(to_tensor(picture, spec)[None])[0] for spec in specs}
    except ImageError as error:
        return Look(error.detail)
    except OSError as error:
        return Look(f"cannot be read: {error.strerror}")
    except MemoryError:
        return Look("needs more memory than there is")
    thumbnail = _thumbnail(picture)
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0))
    brightness = float(small.mean()) / 255
    return Look(None, hashlib.sha256(encoded).hexdigest(), picture.size, brightness, small, thumbnail, features)


def _thumbnail(picture: Image.Image) -> bytes:
    small, encoded = picture.copy(), io.BytesIO()
    small.thumbnail((SHOWN, SHOWN))
    to_srgb(small).save(encoded, "JPEG", quality=80)
    return encoded.getvalue()
