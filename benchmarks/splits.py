"""Photos to train on and photos to judge by, as links, the same ones for every program that is compared; and what else
these programs share.

FOLDER holds <class>/*.jpg. A seed draws from each class, and what it draws does not depend on the program that asks.
"""

from __future__ import annotations

import argparse
import math
import os
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from models.preprocess import images_in

TRAIN_SHARE = 2 / 3


def lay_out(photos: Path, out: Path, seed: int, judge: Path | None = None, per_class: int | None = None) -> None:
    """Link photos into `out`/train/<class> and `out`/val/<class>.

    Two thirds of each class to train on and the rest to judge by, or with `judge`, a folder like `photos`, all of that
    to judge by. `per_class`: how many photos of each class to train on. Raises ValueError if there are fewer, or if no
    photo is left to judge by.
    """
    for folder in sorted(path for path in photos.iterdir() if path.is_dir()):
        files = sorted(images_in(folder))
        random.Random(f"{seed} {folder.name}").shuffle(files)
        count = per_class or (len(files) if judge else round(TRAIN_SHARE * len(files)))
        rest = sorted(images_in(judge / folder.name)) if judge else files[count:]
        if len(files) < count or not rest:
            raise ValueError(f"{folder} has {len(files)} photos: {count} to train on leave {len(rest)} to judge by")
        for part, chosen in (("train", files[:count]), ("val", rest)):
            (out / part / folder.name).mkdir(parents=True)
            for number, file in enumerate(chosen):
                os.link(file, out / part / folder.name / f"{number:05}{file.suffix}")


def add_flags(parser: argparse.ArgumentParser, epochs: int) -> None:
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--judge", type=Path, help="photos to judge by [default: a third of PHOTOS]")
    parser.add_argument("--per_class", type=int, help="photos of each class to train on")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--size", type=int, default=96, help="pixels")
    parser.add_argument("--epochs", type=int, default=epochs, help="of the whole network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])


def summary(values: Sequence[float]) -> str:
    """The mean, its standard error over the seeds, and the values."""
    error = f" ± {stdev(values) / math.sqrt(len(values)):.1%}" if len(values) > 1 else ""
    return f"{mean(values):.1%}{error} ({', '.join(f'{value:.1%}' for value in values)})"
