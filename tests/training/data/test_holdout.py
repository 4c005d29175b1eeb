import numpy as np
import pytest

from training.config import build
from training.data.datasets import held_out, open_split, open_splits
from training.data.layouts.published import ImageArrays
from training.errors import DataError


def labels_of(*counts):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return np.random.default_rng(0).permutation(labels)


@pytest.mark.parametrize("count", [1, 7, 40, 99, 111])
def test_each_class_gives_its_share(count):
    labels = labels_of(60, 30, 20, 1)
    chosen = held_out(labels, count, seed=1)
    assert len(chosen) == len({*chosen.tolist()}) == count
    shares = np.bincount(labels) * count / len(labels)
    assert (np.abs(np.bincount(labels[chosen], minlength=4) - shares) < 1).all()


def test_classes_of_equal_size_give_the_same_number():
    labels = labels_of(*[50] * 20)
    assert np.bincount(labels[held_out(labels, 100, seed=1)]).tolist() == [5] * 20


def test_the_seed_decides_which_images_are_drawn():
    labels = labels_of(500, 500)
    first, again, other = (held_out(labels, 100, seed).tolist() for seed in (1, 1, 2))
    assert first == again == sorted(first)
    assert len({*first} & {*other}) < 50


def test_all_images_are_drawn_if_there_are_fewer():
    assert held_out(labels_of(2, 1), 10**12, seed=1).tolist() == [0, 1, 2]


def config(folder, **keys):
    return build({"data_url": str(folder), "set": "ImageFolder", "num_classes": 2} | keys, source="test")


def test_held_out_images_are_left_out_of_training_and_val_is_not_opened(image_folder):
    everything = {path for path, _ in open_split(config(image_folder), "train").images}
    (image_folder / "val").rename(image_folder / "later")
    train, chosen = open_splits(config(image_folder, holdout=10))
    parts = [{path for path, _ in images.images} for images in (train, chosen)]
    assert parts[0] | parts[1] == everything
    assert not parts[0] & parts[1]
    assert np.bincount(chosen.labels).tolist() == [5, 5]
    assert train.classes == chosen.classes == ("across", "down")


def test_without_a_holdout_val_is_evaluated(image_folder):
    train, val = open_splits(config(image_folder))
    assert (len(train), len(val)) == (64, 18)
    assert {path.parts[-3] for path, _ in val.images} == {"val"}


@pytest.mark.parametrize("count", [63, 64, 10**12])
def test_a_class_that_would_have_no_image_left_is_named(image_folder, count):
    with pytest.raises(DataError, match=rf"holdout {count} of the 64 images .* no image to train on for .*: give a"):
        open_splits(config(image_folder, holdout=count))


def test_a_subset_has_pixels_of_its_own(image_folder, tmp_path):
    """Kept pixels of the whole split are not taken for those of another image."""
    whole = open_split(config(image_folder), "train")
    part = whole.subset([40, 2])
    for index, of_whole in enumerate((40, 2)):
        for images in (whole, part):
            images.kept_picture(of_whole if images is whole else index, "srgb")
        assert part.kept_picture(index, "srgb") == whole.picture(of_whole, "srgb")
        assert part.name(index) == whole.name(of_whole)
    arrays = np.arange(4 * 3, dtype=np.uint8).reshape(4, 1, 1, 3)
    few = ImageArrays(tmp_path, ("a", "b"), arrays, np.array([0, 1, 1, 0], np.int32)).subset([3, 1])
    assert (few.labels.tolist(), few.arrays[:, 0, 0, 0].tolist()) == ([0, 1], [9, 3])
