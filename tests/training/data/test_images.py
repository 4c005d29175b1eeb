import os

import numpy as np
import pytest
from PIL import Image

from models.manifest import Preprocess
from training.data.datasets import ImageFolder, scan
from training.data.images import Kept
from training.errors import DataError

SPEC = Preprocess(input_size=8, interpolation="bicubic", crop_pct=1.0, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


def test_pixels_are_kept_as_long_as_they_fit():
    kept, made = Kept(most_bytes=10), []

    def make():
        made.append(1)
        return np.zeros(4, np.uint8)

    for key in (0, 1, 2, 0, 1, 2):
        kept.get(key, make)
    assert len(made) == 4  # the third one never fits


def test_a_picture_counts_with_the_bytes_that_pillow_needs():
    kept = Kept(most_bytes=4 * 5 * 6)
    first = kept.get(0, lambda: Image.new("RGB", (5, 6)))
    assert kept.get(0, lambda: Image.new("RGB", (5, 6))) is first
    second = kept.get(1, lambda: Image.new("RGB", (1, 1)))
    assert kept.get(1, lambda: Image.new("RGB", (1, 1))) is not second


def test_a_file_is_decoded_once_per_run(image_folder):
    images = scan(image_folder / "train", 2)
    square, picture = images.kept_square(5, SPEC), images.kept_picture(5, "srgb")
    images.images[5][0].unlink()
    np.testing.assert_array_equal(images.kept_square(5, SPEC), square)
    assert images.kept_picture(5, "srgb") is picture
    with pytest.raises(DataError, match="cannot be read"):
        images.kept_square(5, SPEC.model_copy(update={"crop_pct": 0.5}))


def test_a_pipe_blocks_no_step_that_runs_without_verification(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    images = ImageFolder(tmp_path, ("a", "b"), ((tmp_path / "pipe.png", 0),))
    with pytest.raises(DataError, match=r"pipe\.png cannot be read: not a regular file"):
        images.picture(0, "srgb")


def test_a_picture_that_cannot_be_resized_is_named(tmp_path):
    Image.new("RGB", (1, 60_000)).save(tmp_path / "thin.png")
    images = ImageFolder(tmp_path, ("a", "b"), ((tmp_path / "thin.png", 0),))
    with pytest.raises(DataError, match=r"thin\.png: an image of 1 x 60000 pixels is too long and thin"):
        images.kept_square(0, SPEC.model_copy(update={"input_size": 32}))
