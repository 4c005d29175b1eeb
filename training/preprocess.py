"""python -m training.preprocess --config RECIPE --data_url DATA --result_path FOLDER: the val split as .bin files.

For machines that have no MindSpore, such as an Ascend 310 host; training.deploy.offline says what lies where.

1. each file holds the very pixels that evaluation and the service give to the network;
2. only a batch of images is in memory at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from training.config import TrainConfig, parse
from training.data.pipeline import Images, evaluation_batches, evaluation_spec, open_split
from training.deploy.offline import IMAGES, LABELS, SUFFIX, new_folder, write_floats, write_labels
from training.errors import reporting_errors


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    config, _, flags = parse(
        argv,
        prog="python -m training.preprocess",
        description=__doc__,
        result_path={
            "type": Path,
            "required": True,
            "metavar": "FOLDER",
            "help": "new folder for img_data/ and label/",
        },
    )
    images = open_split(config, "val")
    write(images, config, flags.result_path)
    side = config.image_size
    print(f"{flags.result_path}: {len(images)} images of {config.dataset_title}, each float32 (3, {side}, {side})")
    return 0


def write(images: Images, config: TrainConfig, folder: Path) -> None:
    """Raises TrainingError."""
    names = [f"{config.set}_{index:06}" for index in range(len(images))]
    batches = evaluation_batches(images, evaluation_spec(config), config.batch_size, config.num_parallel_workers)
    remaining = iter(tqdm(names, "preprocess", unit="image", leave=False, disable=None))
    with new_folder(folder) as draft:
        (draft / IMAGES).mkdir()
        for batch in batches:
            for tensor, name in zip(batch.images[: batch.count], remaining, strict=False):
                write_floats(draft / IMAGES / f"{name}{SUFFIX}", tensor)
        write_labels(draft / LABELS, config.num_classes, dict(zip(names, images.labels.tolist(), strict=True)))


if __name__ == "__main__":
    sys.exit(main())
