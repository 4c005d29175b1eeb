import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from training.config import build
from training.errors import ConfigError
from training.policies import AUGMIX, LEVELS, RAND, RAND_INCREASING, Operation, operation, parse

FILL = (124, 116, 104)
MOVING = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
ENHANCING = ("Color", "Contrast", "Brightness", "Sharpness")


@pytest.fixture(scope="module")
def photo():
    """Smooth colours with some noise: every operation shows on it."""
    down, across = np.mgrid[0:48, 0:40] / 48
    bands = np.stack([down, across, np.sin(6 * (down + across)) / 2 + 0.5], axis=2)
    noise = np.random.default_rng(0).normal(0, 12, bands.shape)
    return np.clip(40 + 170 * bands + noise, 0, 255).astype(np.uint8)


def done(name, level, image, sign=1):
    from training.augment import build as operator

    built = operator(operation(name, level, sign), FILL)
    return image if built is None else built(image)


def change(name, level, image, sign=1):
    return float(np.abs(done(name, level, image, sign).astype(int) - image).mean())


def test_randaugment_as_timm_writes_it():
    policy = parse("rand-m9-mstd0.5-inc1")
    assert (policy.depth, policy.width) == (2, 0)
    assert len(policy.choices) == len(RAND_INCREASING) * LEVELS * 2
    assert {probability for ((_, probability),) in policy.choices} == {0.5}
    degrees = sorted({op.value for ((op, _),) in policy.choices if op.kind == "rotate"})
    assert degrees[0] == -degrees[-1]
    assert 27 < degrees[-1] <= 30
    assert np.median([value for value in degrees if value > 0]) == pytest.approx(27)


def test_every_option_of_a_string_counts():
    policy = parse("rand-m4-n3-p1-inc0")
    assert policy.depth == 3
    assert {probability for ((_, probability),) in policy.choices} == {1.0}
    assert [op.value for ((op, _),) in policy.choices if op.kind == "color"] == pytest.approx([0.1 + 1.8 * 0.4] * 2)
    policy = parse("augmix-m5-w4-d2-a0.5")
    assert (policy.width, policy.depth, policy.alpha) == (4, 2, 0.5)
    assert parse("augmix-m3").depth == 0
    spread = sorted(op.value for ((op, _),) in parse("augmix-m10").choices if op.kind == "shear_x")
    assert spread[-1] == pytest.approx(0.3 * (LEVELS - 0.5) / LEVELS)


@pytest.mark.parametrize("text", ["original", "originalr"])
def test_autoaugment_has_the_papers_sub_policies(text):
    policy = parse(text)
    assert len(policy.choices) == 25 * 4  # each with all signs
    assert {len(choice) for choice in policy.choices} == {2}
    assert (Operation("posterize", 7.0 if text == "original" else 1.0), 0.4) in policy.choices[0]
    assert policy.choices[0][1] == (Operation("rotate", 27.0), 0.6)
    assert policy.choices[-1] == ((Operation("equalize"), 0.8), (Operation("equalize"), 0.6))


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
def test_a_policy_that_is_not_understood_names_what_is(text):
    with pytest.raises(ConfigError, match=r"understood: rand-m<0\.\.10>.* original, originalr, augmix-m"):
        build({"auto_augment": text}, source="test")


def test_no_policy_is_none():
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
def test_no_operation_leaves_size_and_uint8(photo, name, level):
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
def test_moves_go_as_far_as_they_say_and_are_filled_with_the_mean_colour():
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
    """Of a square turned around its centre: four right triangles are lost, whose perimeter is the side."""
    hypotenuse = 1 / (1 + math.sin(angle) + math.cos(angle))
    return 1 - 2 * hypotenuse**2 * math.sin(angle) * math.cos(angle)


@pytest.mark.usefixtures("cpu")
def test_equalize_is_opencvs(photo):
    """Value v becomes 255 * (cdf(v) - cdf(least)) / (pixels - cdf(least)), each channel by itself."""
    changed = done("Equalize", 5, photo)
    for channel in range(3):
        counts = np.bincount(photo[..., channel].ravel(), minlength=256)
        least = counts[np.flatnonzero(counts)[0]]
        mapped = np.rint(255 * (counts.cumsum() - least) / (counts.sum() - least)).clip(0)
        np.testing.assert_array_equal(changed[..., channel], mapped[photo[..., channel]])


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize(
    "text", ["rand-m9-mstd0.5-inc1", "rand-m5", "original", "originalr", "augmix-m5-w4-d2", "augmix-m3"]
)
def test_a_chain_keeps_size_and_type_and_changes_pictures(photo, text):
    from training.augment import chain

    pictures = []
    for _ in range(12):
        picture = photo
        for operator in chain(parse(text), build({}, source="test")):
            picture = operator(picture)
        assert (picture.shape, picture.dtype) == (photo.shape, np.uint8)
        pictures.append(picture.tobytes())
    assert len(set(pictures)) > 3


@pytest.mark.usefixtures("cpu")
def test_probability_0_changes_nothing(photo):
    from training.augment import chain

    for _ in range(5):
        for operator in chain(parse("rand-m9-p0-inc1"), build({}, source="test")):
            np.testing.assert_array_equal(operator(photo), photo)
