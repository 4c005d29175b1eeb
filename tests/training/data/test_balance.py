"""Uneven classes, vertical flips and cutout."""

from pathlib import Path

import numpy as np
import pytest

from training.config import build
from training.data.augmentation.crops import square
from training.data.augmentation.mixing import cut_out
from training.data.layouts.published import ImageArrays
from training.data.pipeline import epoch_order, evaluation_spec
from training.errors import ConfigError


def images_of(*counts):
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    return ImageArrays(Path("drawn"), tuple("abcd"[: len(counts)]), arrays, labels)


def order_of(images, epoch=0, **keys):
    return epoch_order(images, build({"batch_size": 10, **keys}, source="test"), epoch)


def test_balanced_sampling_draws_as_many_of_each_class_and_repeats_a_small_class_evenly():
    images = images_of(70, 3, 27)
    order = order_of(images, sampling="balanced")
    assert len(order) == len(images)
    assert sorted(np.bincount(images.labels[order])) == [33, 33, 34]
    times = np.bincount(order, minlength=100)
    assert set(times[70:73]) <= {11, 12}
    assert set(times[73:]) <= {1, 2}
    assert set(times[:70]) == {0, 1}
    assert (order == order_of(images, sampling="balanced")).all()
    assert (order != order_of(images, sampling="balanced", epoch=1)).any()
    assert sorted(order_of(images)) == list(range(100)), "by default each image once"


def test_weights_and_sampling_are_not_both_balanced():
    with pytest.raises(ConfigError, match="class_weights and sampling are both balanced"):
        build({"class_weights": "balanced", "sampling": "balanced"}, source="test")


def test_vertical_flips_come_as_often_as_asked_and_independently_of_the_epoch():
    images = images_of(100, 100)
    keys = {"crop": "padded", "crop_pct": 1.0, "image_size": 8, "interpolation": "nearest"}
    flipped = []
    for epoch in range(2):
        for vflip in (0.0, 0.3, 1.0):
            config = build(keys | {"vflip": vflip}, source="test")
            found = [square(images, index, config, evaluation_spec(config), epoch) for index in range(200)]
            upside_down = [(pixels == image[::-1]).all() for pixels, image in zip(found, images.arrays, strict=True)]
            upright = [(pixels == image).all() for pixels, image in zip(found, images.arrays, strict=True)]
            assert (np.array(upside_down) ^ np.array(upright)).all()
            flipped.append(np.array(upside_down))
    assert [share.mean() for share in (flipped[0], flipped[2])] == [0, 1]
    assert 0.2 < flipped[1].mean() < 0.4
    assert (flipped[1] != flipped[4]).any()


def test_cutout_is_a_square_of_the_mean_colour_that_may_leave_the_image():
    images = np.ones((300, 3, 9, 9), np.float32)
    cut_out(images, 4, np.random.default_rng(0))
    holes = (images == 0).all(axis=1)
    assert ((images == 0).any(axis=1) == holes).all()
    sizes = set()
    for hole in holes:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns)
        sizes.add((len(rows), len(columns)))
    assert max(sizes) == (4, 4)
    assert min(sizes) == (2, 2), "a centre at the corner"
    assert holes.any(axis=0).all()


@pytest.mark.usefixtures("cpu")
def test_balanced_weights_are_those_of_the_formula_for_class_ids_and_soft_targets():
    import mindspore as ms

    from training.optim.losses import CrossEntropySmooth, balanced_weights

    labels = np.array([0] * 6 + [1] * 2, np.int32)
    weights = balanced_weights(labels, 2)
    assert weights == pytest.approx((8 / (2 * 6), 8 / (2 * 2)))
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1)
    rng = np.random.default_rng(0)
    logits, soft = rng.normal(size=(4, 2)).astype(np.float32), rng.dirichlet([1, 1], 4).astype(np.float32)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss = CrossEntropySmooth(0.1, weights)
    for targets, given in ((soft, soft), (np.eye(2)[[0, 1, 1, 0]], np.array([0, 1, 1, 0], np.int32))):
        own = targets @ np.array(weights)
        expected = (own * -((0.9 * targets + 0.05) * log_p).sum(1)).sum() / own.sum()
        assert float(loss(ms.Tensor(logits), ms.Tensor(given)).asnumpy()) == pytest.approx(expected, rel=1e-5)
