"""Images -> the input files of offline inference.

1. each file holds exactly the pixels that evaluation and the service feed to the network;
2. only one batch of images is in memory at a time.
"""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from training.config import TrainConfig
from training.data.pipeline import Images, evaluation_batches, evaluation_spec
from training.deploy.offline.files import IMAGES, LABELS, SUFFIX, new_folder, write_floats, write_labels


def write_images(images: Images, config: TrainConfig, folder: Path) -> None:
    """Write img_data/ and label/ into the new `folder`. Raises TrainingError."""
    names = [f"{config.set}_{index:06}" for index in range(len(images))]
    batches = evaluation_batches(images, evaluation_spec(config), config.batch_size, config.num_parallel_workers)
    remaining = iter(tqdm(names, "preprocess", unit="image", leave=False, disable=None))
    with new_folder(folder) as draft:
        (draft / IMAGES).mkdir()
        for batch in batches:
            for tensor, name in zip(batch.images[: batch.count], remaining, strict=False):
                write_floats(draft / IMAGES / f"{name}{SUFFIX}", tensor)
        write_labels(draft / LABELS, len(images.classes), dict(zip(names, images.labels.tolist(), strict=True)))
