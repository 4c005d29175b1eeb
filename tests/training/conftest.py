"""Small drawn image folders, and MindSpore set up for the tests."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import device


@pytest.fixture(scope="session")
def cpu():
    """MindSpore on CPU; whatever imports it asks for this first."""
    device.prepare("CPU", 0)


def drawn_jpeg(class_id: int, seed: int, size: int = 32) -> bytes:
    """Stripes whose direction is the class, in random colours: a network can learn it in seconds."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[0:size, 0:size]
    wave = np.sin((down if class_id % 2 else across) * rng.uniform(0.8, 1.2) + rng.uniform(0, 6))
    pixels = 127 + 100 * wave[..., None] * rng.uniform(0.3, 1, 3) + rng.normal(0, 10, (size, size, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def draw_image_folder():
    """(root, {split: images per class}) -> root, filled with <split>/<across|down>/*.jpg."""

    def draw(root: Path, per_class: dict[str, int]) -> Path:
        seeds = itertools.count()
        for split, count in per_class.items():
            for class_id, name in enumerate(("across", "down")):
                folder = root / split / name
                folder.mkdir(parents=True)
                for index in range(count):
                    (folder / f"{index:03}.jpg").write_bytes(drawn_jpeg(class_id, next(seeds)))
        return root

    return draw


@pytest.fixture
def image_folder(draw_image_folder, tmp_path):
    """train/ with 2 x 32 and val/ with 2 x 9 images of the classes `across` and `down`."""
    return draw_image_folder(tmp_path / "data", {"train": 32, "val": 9})
