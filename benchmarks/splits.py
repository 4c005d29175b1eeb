"""Photos to train on and photos to judge by, as links, the same ones for every program that is compared.

FOLDER holds <class>/*.jpg. A seed draws from each class, and what it draws does not depend on the program that asks.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

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
