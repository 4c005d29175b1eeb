"""python -m training.preprocess --config RECIPE --data_url DATA --result_path FOLDER: the val split as .bin files.

Step 1 of offline inference, for hosts without MindSpore such as an Ascend 310; training.deploy.offline.files describes
the files.

1. each file holds exactly the pixels that evaluation and the service feed to the network;
2. only one batch of images is in memory at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from training.config import parse
from training.data.pipeline import open_split
from training.deploy.offline.preprocessing import write_images
from training.errors import reporting_errors

FLAGS = {
    "result_path": {"type": Path, "required": True, "metavar": "FOLDER", "help": "new folder for img_data/ and label/"}
}


@reporting_errors
def main(argv: Sequence[str] | None = None) -> int:
    config, _, flags = parse(argv, prog="python -m training.preprocess", description=__doc__, **FLAGS)
    images = open_split(config, "val")
    write_images(images, config, flags.result_path)
    side = config.image_size
    print(f"{flags.result_path}: {len(images)} images of {config.dataset_title}, each float32 (3, {side}, {side})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
