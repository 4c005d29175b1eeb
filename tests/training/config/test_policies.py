import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from training.config import build
from training.config.policies import AUGMIX, RAND, RAND_INCREASING, AugMix, operation, parse
from training.errors import ConfigError

FILL = (124, 116, 104)
MOVING = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
ENHANCING = ("Color", "Contrast", "Brightness", "Sharpness")


@pytest.fixture(scope="module")
def photo():
    """Smooth colours with some noise, so that every operation has a visible effect."""
    down, across = np.mgrid[0:48, 0:40] / 48
    bands = np.stack([down, across, np.sin(6 * (down + across)) / 2 + 0.5], axis=2)
    noise = np.random.default_rng(0).normal(0, 12, bands.shape)
    return np.clip(40 + 170 * bands + noise, 0, 255).astype(np.uint8)


def done(name, level, image, sign=1):
    from training.data.augmentation.augment import build as operator

    built = operator(operation(name, level, sign), FILL)
    return image if built is None else built(image)


def change(name, level, image, sign=1):
    return float(np.abs(done(name, level, image, sign).astype(int) - image).mean())


def draws(text, count=4000, seed=0):
    policy, rng = parse(text), np.random.default_rng(seed)
    return [policy.draw(rng) for _ in range(count)]


def values(drawn, kind):
    return np.array([operation.value for operations in drawn for operation in operations if operation.kind == kind])


def test_randaugment_draws_its_magnitudes_as_timm_does():
    drawn = draws("rand-m9-mstd0.5-inc1")
    assert np.bincount([len(operations) for operations in drawn]) / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.04)
    degrees = values(drawn, "rotate")
    assert np.abs(degrees).mean() == pytest.approx(27, abs=0.3)
    assert np.abs(degrees).std() == pytest.approx(1.5, abs=0.3)
    assert np.abs(degrees).max() <= 30
    assert (degrees > 0).mean() == pytest.approx(0.5, abs=0.1)
    counts = np.array([len(values(drawn, kind)) for kind in ("invert", "shear_x", "translate_y", "posterize", "color")])
    assert counts / 4000 == pytest.approx(np.full(5, 1 / len(RAND_INCREASING)), abs=0.02)


def test_the_two_operations_of_an_image_are_independent():
    pairs = [operations for operations in draws("rand-m9-p1-inc1") if len(operations) == 2]
    assert np.mean([first.kind == second.kind for first, second in pairs]) == pytest.approx(1 / 14, abs=0.02)


def test_every_option_in_a_policy_string_has_an_effect():
    drawn = draws("rand-m4-n3-p1-inc0", 500)
    assert {len(operations) for operations in drawn} == {3}
    assert set(values(drawn, "color")) == {0.1 + 1.8 * 4 / 10}
    assert set(values(draws("rand-m4-inc1", 500), "color")) == {1 - 0.36, 1 + 0.36}
    assert parse("augmix-m5-w4-d2-a0.5-mstd0.5") == AugMix(5, 0.5, width=4, depth=2, alpha=0.5)
    assert (parse("rand-m9").width, parse("original").width, parse("augmix-m3").width) == (0, 0, 3)


def test_augmix_draws_one_to_three_operations_of_any_magnitude_up_to_its_own():
    drawn = draws("augmix-m5")
    assert np.bincount([len(operations) for operations in drawn])[1:] / 4000 == pytest.approx([1 / 3] * 3, abs=0.04)
    assert {len(operations) for operations in draws("augmix-m5-d2", 100)} == {2}
    slopes = np.abs(values(drawn, "shear_x"))
    assert slopes.max() <= 0.15
    assert slopes.mean() == pytest.approx(0.075, abs=0.01)


@pytest.mark.parametrize("text", ["original", "originalr"])
def test_autoaugment_draws_the_papers_sub_policies(text):
    drawn = draws(text)
    assert {len(operations) for operations in drawn} == {0, 1, 2}
    assert set(values(drawn, "posterize")) == ({6.0, 7.0} if text == "original" else {1.0, 2.0})
    assert set(np.abs(values(drawn, "rotate"))) == {9.0, 24.0, 27.0}
    contrasts = len(values(drawn, "contrast")) / 4000
    assert contrasts == pytest.approx(2 / 25, abs=0.02)  # certain in 2 of the 25


def test_the_same_generator_draws_the_same_operations():
    assert draws("rand-m9-mstd0.5", 50) == draws("rand-m9-mstd0.5", 50) != draws("rand-m9-mstd0.5", 50, seed=1)


@pytest.mark.parametrize(
    "text",
    [
        "rand",
        "rand-m11",
        "rand-m9-m9",
        "rand-m9-x1",
        "rand-m9.5",
        "rand-m9-mstd",
        "rand-m9-inc2",
        "rand-m9-p1.5",
        "rand-m9-n0",
        "rand_m9",
        "augmix-w3",
        "augmix-m3-w0",
        "augmix-m3-inc1",
        "original-m9",
        "autoaug",
        "-",
    ],
)
def test_an_invalid_policy_shows_the_valid_forms(text):
    with pytest.raises(ConfigError, match=r"valid: rand-m<0\.\.10>.* original, originalr, augmix-m"):
        build({"auto_augment": text}, source="test")


def test_an_empty_policy_is_off():
    assert build({"auto_augment": "None"}, source="test").auto_augment is None


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("name", [*MOVING, *(f"{n}Increasing" for n in ENHANCING), "SolarizeIncreasing"])
@pytest.mark.parametrize("sign", [1, -1])
def test_magnitude_0_changes_nothing_and_a_greater_one_changes_more(photo, name, sign):
    changes = [change(name, level, photo, sign) for level in (0, 3, 6, 10)]
    assert changes[0] == 0
    assert changes == sorted(changes)
    assert changes[-1] > 1.0


@pytest.mark.usefixtures("cpu")
def test_posterize_keeps_fewer_bits_at_a_greater_magnitude(photo):
    values = [len(np.unique(done("PosterizeIncreasing", level, photo))) for level in (0, 3, 6, 9)]
    assert values == [16, 8, 4, 2]
    assert [operation("PosterizeOriginal", level).value for level in (0, 5, 10)] == [4, 6, 8]


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("name", sorted({*RAND, *RAND_INCREASING, *AUGMIX}))
@pytest.mark.parametrize("level", [0, 5, 10])
def test_every_operation_keeps_size_and_type(photo, name, level):
    for image in (photo, np.zeros_like(photo), np.full_like(photo, 255)):
        changed = done(name, level, image)
        assert (changed.shape, changed.dtype) == (image.shape, np.uint8)


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize(
    ("name", "level", "by_pillow"),
    [
        ("AutoContrast", 5, ImageOps.autocontrast),
        ("Invert", 5, ImageOps.invert),
        ("PosterizeOriginal", 0, lambda image: ImageOps.posterize(image, 4)),
        ("Solarize", 5, lambda image: ImageOps.solarize(image, 128)),
        ("Color", 10, lambda image: ImageEnhance.Color(image).enhance(1.9)),
        ("Color", 0, lambda image: ImageEnhance.Color(image).enhance(0.1)),
        ("Contrast", 10, lambda image: ImageEnhance.Contrast(image).enhance(1.9)),
        ("Brightness", 8, lambda image: ImageEnhance.Brightness(image).enhance(0.1 + 1.8 * 0.8)),
        ("Sharpness", 10, lambda image: ImageEnhance.Sharpness(image).enhance(1.9)),
        ("Rotate", 10, lambda image: image.rotate(-30, Image.Resampling.BILINEAR, fillcolor=FILL)),
    ],
)
def test_an_operation_does_what_pillow_does(photo, name, level, by_pillow):
    expected = np.asarray(by_pillow(Image.fromarray(photo))).astype(int)
    difference = np.abs(done(name, level, photo) - expected)
    assert np.mean(difference) < 1.0
    assert np.mean(difference > 3) < 0.05  # Pillow does not interpolate with the fill at the border


@pytest.mark.usefixtures("cpu")
def test_moves_have_the_given_distance_and_are_filled_with_the_mean_colour():
    image = np.zeros((40, 40, 3), np.uint8)
    shifted = done("TranslateX", 10, image)
    filled = (shifted == FILL).all(axis=2)
    assert filled.all(axis=0).sum() == pytest.approx(0.45 * 40, abs=1)
    sheared = done("ShearX", 10, image)
    per_row = (sheared == FILL).all(axis=2).sum(axis=1)
    assert per_row[0] == pytest.approx(0.3 * 20, abs=1.5)  # around the centre: half a side from it
    assert per_row[20] <= 1
    turned = done("Rotate", 10, np.full((64, 64, 3), 200, np.uint8))
    assert turned[0, 0].tolist() == list(FILL)
    assert (turned == 200).all(axis=2).mean() == pytest.approx(share_inside_when_turned(math.radians(30)), abs=0.03)


def share_inside_when_turned(angle):
    """The area that a square loses when it is rotated: four right triangles whose perimeter is the side."""
    hypotenuse = 1 / (1 + math.sin(angle) + math.cos(angle))
    return 1 - 2 * hypotenuse**2 * math.sin(angle) * math.cos(angle)


@pytest.mark.usefixtures("cpu")
def test_equalize_is_opencvs(photo):
    """Value v becomes 255 * (cdf(v) - cdf(min)) / (pixels - cdf(min)), for each channel separately."""
    changed = done("Equalize", 5, photo)
    for channel in range(3):
        counts = np.bincount(photo[..., channel].ravel(), minlength=256)
        least = counts[np.flatnonzero(counts)[0]]
        mapped = np.rint(255 * (counts.cumsum() - least) / (counts.sum() - least)).clip(0)
        np.testing.assert_array_equal(changed[..., channel], mapped[photo[..., channel]])


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("text", ["rand-m9-mstd0.5-inc1", "rand-m5", "original", "originalr", "augmix-m5-w4-d2"])
def test_a_chain_keeps_size_and_type_and_changes_pictures(photo, text):
    import mindspore.dataset as ds

    from training.data.augmentation.augment import chain

    ds.config.set_seed(1)
    dataset = ds.NumpySlicesDataset(np.stack([photo] * 40), ["image"], shuffle=False)
    dataset = dataset.map(chain(parse(text), FILL, np.random.default_rng(0)), "image")
    pictures = [row["image"] for row in dataset.create_dict_iterator(num_epochs=1, output_numpy=True)]
    assert {(picture.shape, picture.dtype) for picture in pictures} == {(photo.shape, np.dtype(np.uint8))}
    assert len({picture.tobytes() for picture in pictures}) > 8


@pytest.mark.usefixtures("cpu")
def test_probability_0_changes_nothing(photo):
    from training.data.augmentation.augment import chain

    operator = chain(parse("rand-m9-p0-inc1"), FILL, np.random.default_rng(0))
    for _ in range(5):
        np.testing.assert_array_equal(operator(photo), photo)


@pytest.mark.usefixtures("cpu")
def test_the_chains_of_augmix_differ_although_minddata_draws_the_same_place_in_each():
    from training.data.augmentation.augment import CHOICES, chain

    rng = np.random.default_rng(0)
    first, second = (
        [
            [type(operator).__name__ for operator, _ in sequence]
            for sequence in chain(parse("augmix-m5"), FILL, rng).policy
        ]
        for _ in range(2)
    )
    assert len(first) == len(second) == CHOICES
    assert sum(one == other for one, other in zip(first, second, strict=True)) < CHOICES / 4
