import numpy as np
import pytest
from PIL import Image

from training.config import build
from training.data.augmentation.crops import ASPECT, random_box, square
from training.data.layouts.published import ImageArrays

AREA = (0.08, 1.0)  # the default of crop_scale


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (32, 32), (224, 100)])
@pytest.mark.parametrize("scale", [AREA, (0.35, 1.0), (0.1, 0.3)])
def test_a_random_part_lies_in_the_picture_and_keeps_area_and_aspect(size, scale):
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(*size, scale, rng) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= size[0]).all()
    assert (bottom <= size[1]).all()
    across, down = right - left, bottom - top
    shares, aspects = across * down / (size[0] * size[1]), across / down
    rounding = 1 / down.min() + 1 / across.min()
    assert shares.min() >= scale[0] * (1 - rounding)
    assert shares.max() <= min(1, scale[1] * (1 + rounding))
    assert aspects.min() >= ASPECT[0] * (1 - rounding)
    assert aspects.max() <= ASPECT[1] * (1 + rounding)


def test_areas_and_the_logarithms_of_aspects_are_uniform():
    """In a picture so large that nearly every part fits, except the largest."""
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(1000, 1000, AREA, rng) for _ in range(4000)])
    across, down = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    shares, logarithms = across * down / 1e6, np.log(across / down)
    small = shares[shares < 0.7]
    low, high = AREA[0], 0.7
    assert small.mean() == pytest.approx((low + high) / 2, abs=0.01)
    assert small.std() == pytest.approx((high - low) / 12**0.5, abs=0.01)
    assert logarithms[shares < 0.7].std() == pytest.approx(2 * np.log(ASPECT[1]) / 12**0.5, abs=0.01)
    assert logarithms.mean() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((1, 1000), (0, 499, 1, 500)),
        ((1000, 2), (498, 0, 501, 2)),
        ((1, 1), (0, 0, 1, 1)),
        ((20, 400), (0, 186, 20, 213)),
    ],
)
def test_the_middle_of_a_long_thin_picture_is_taken(size, box):
    assert {random_box(*size, AREA, np.random.default_rng(seed)) for seed in range(20)} == {box}


def of_noise(tmp_path, count=4, side=40):
    arrays = np.random.default_rng(0).integers(0, 256, (count, side, side + 8, 3), np.uint8)
    return ImageArrays(tmp_path, ("a", "b"), arrays, np.zeros(count, np.int32))


def test_each_epoch_and_image_has_its_own_part_and_a_repeated_epoch_has_the_same_ones(tmp_path):
    from training.data.pipeline import evaluation_spec

    config = build({"image_size": 16, "crop": "random_resized"}, source="test")
    images, spec = of_noise(tmp_path), evaluation_spec(config)
    first, again, other = (
        [square(images, index, config, spec, epoch) for index in range(len(images))] for epoch in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert all((found != expected).any() for found, expected in zip(other, first, strict=True))
    assert {array.shape for array in first} == {(16, 16, 3)}
    assert len({array.tobytes() for array in first}) == 4


def test_a_random_part_is_cut_out_before_it_is_resized(tmp_path):
    """What lies beside the part does not bleed into it."""
    from training.data.pipeline import evaluation_spec

    config = build({"image_size": 16, "crop": "random_resized", "crop_scale": [0.35, 1], "seed": 3}, source="test")
    images = of_noise(tmp_path)
    found = square(images, 2, config, evaluation_spec(config), 5)
    box = random_box(48, 40, (0.35, 1.0), np.random.default_rng((3, 5, 2)))
    expected = Image.fromarray(images.arrays[2]).crop(box).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found, np.asarray(expected))
