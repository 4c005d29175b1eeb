import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.augmentation.mixing import ERASED_AREA, ERASED_ASPECT, Mixing, cut_box, erase, erased_box, mix_chains

CLASSES = 5
MODES = ("batch", "elem", "pair")


def rng(seed=0):
    return np.random.default_rng(seed)


def batch(count=6, size=12, seed=0):
    images = rng(seed).normal(size=(count, 3, size, size)).astype(np.float32)
    return images, rng(seed).integers(0, CLASSES, count).astype(np.int32)


def mixed(mixing, images, labels, seed=0):
    return mixing(images, labels, CLASSES, rng(seed))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 9),
    st.sampled_from(MODES),
    st.sampled_from([(0.2, 0.0), (0.0, 1.0), (0.8, 1.0)]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_soft_targets_are_shares_of_the_pixels(seed, count, mode, alphas, probability):
    """Every pixel of image i is i, so the mixture shows each image's share, which the target must state."""
    images = np.broadcast_to(np.eye(count, dtype=np.float32)[:, :, None, None], (count, count, 8, 8)).copy()
    targets = Mixing(*alphas, probability, 0.5, mode)(images, np.arange(count, dtype=np.int32), count, rng(seed))
    pixels, shares = targets
    assert (shares.dtype, shares.shape, pixels.dtype) == (np.float32, (count, count), np.float32)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(pixels.mean(axis=(2, 3)), shares, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_mixup_is_its_formula(mode):
    images, labels = batch()
    pixels, shares = mixed(Mixing(0.4, 0.0, 1.0, 0.5, mode), images, labels)
    hard = np.eye(CLASSES)[labels]
    for row in range(6):
        partner = 5 - row
        if labels[row] == labels[partner]:
            continue
        kept = shares[row, labels[row]]
        np.testing.assert_allclose(pixels[row], kept * images[row] + (1 - kept) * images[partner], atol=1e-5)
        np.testing.assert_allclose(shares[row], kept * hard[row] + (1 - kept) * hard[partner], atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_cutmix_pastes_one_rectangle_of_the_partner(mode):
    images = np.arange(6, dtype=np.float32)[:, None, None, None] + np.zeros((6, 3, 16, 16), np.float32)
    pixels, shares = Mixing(0.0, 1.0, 1.0, 0.5, mode)(images, np.arange(6, dtype=np.int32), 6, rng(3))
    for row in range(6):
        pasted = pixels[row, 0] == 5 - row
        rows, columns = np.flatnonzero(pasted.any(axis=1)), np.flatnonzero(pasted.any(axis=0))
        assert pasted.sum() == len(rows) * len(columns)
        assert (pixels[row, 0][~pasted] == row).all()
        assert shares[row, 5 - row] == pytest.approx(pasted.mean())


def kept_shares(mode, count=8):
    _, shares = Mixing(1.0, 0.0, 1.0, 0.5, mode)(
        np.zeros((count, 3, 2, 2), np.float32), np.arange(count, dtype=np.int32), count, rng(1)
    )
    return np.diag(shares)


def test_a_mode_says_who_shares_a_ratio():
    assert len(set(kept_shares("batch"))) == 1
    assert len(set(kept_shares("elem"))) == 8
    pairs = kept_shares("pair")
    assert len(set(pairs)) == 4
    assert (pairs == pairs[::-1]).all()


def test_probability_0_changes_nothing():
    images, labels = batch()
    pixels, shares = mixed(Mixing(0.8, 1.0, 0.0, 0.5, "elem"), images, labels)
    np.testing.assert_array_equal(pixels, images)
    np.testing.assert_array_equal(shares, np.eye(CLASSES)[labels])
    assert not Mixing(0.8, 1.0, 0.0, 0.5, "elem").on
    assert not Mixing(0.0, 0.0, 1.0, 0.5, "elem").on


@pytest.mark.parametrize(("switch", "blended"), [(0.0, 1.0), (1.0, 0.0), (0.3, 0.7)])
def test_switch_prob_is_how_often_it_is_cutmix(switch, blended):
    images = np.arange(400, dtype=np.float32)[:, None, None, None] + np.zeros((400, 3, 6, 6), np.float32)
    pixels, _ = Mixing(1.0, 1.0, 1.0, switch, "elem")(images, np.zeros(400, np.int32), 2, rng())
    whole = (pixels == images) | (pixels == images[::-1])
    assert 1 - whole.all(axis=(1, 2, 3)).mean() == pytest.approx(blended, abs=0.1)


def test_mixup_prob_is_how_often_anything_is_mixed():
    _, shares = Mixing(1.0, 0.0, 0.25, 0.5, "elem")(
        np.zeros((400, 3, 1, 1), np.float32), np.arange(400, dtype=np.int32), 400, rng()
    )
    assert (np.diag(shares) < 1).mean() == pytest.approx(0.25, abs=0.08)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_a_cut_stays_inside_and_is_no_larger_than_drawn(seed, height, width, kept):
    box = cut_box(height, width, kept, rng(seed))
    for side, size in zip(box, (height, width), strict=True):
        assert 0 <= side.start <= side.stop <= size
    area = (box[0].stop - box[0].start) * (box[1].stop - box[1].start)
    assert area <= (1 - kept) * height * width + 1e-6


@pytest.mark.parametrize("count", [1, 3])
def test_an_erased_rectangle_has_the_area_and_the_aspect_of_the_paper(count):
    generator = rng()
    areas, aspects = [], []
    for _ in range(600):
        box = erased_box(224, 160, count, generator)
        down, across = (side.stop - side.start for side in box)
        assert box[0].stop <= 224
        assert box[1].stop <= 160
        areas.append(down * across * count / (224 * 160))
        aspects.append(down / across)
    assert ERASED_AREA[0] * 0.9 < min(areas) < 0.04
    assert 0.35 < max(areas) < ERASED_AREA[1] * 1.05
    assert ERASED_ASPECT[0] * 0.9 < min(aspects) < 0.4
    assert 2.5 < max(aspects) < ERASED_ASPECT[1] * 1.1


def erased(mode, probability=1.0, rectangles=1, count=50):
    images = np.full((count, 3, 32, 32), 7, np.float32)
    erase(images, probability, mode, rectangles, rng())
    return images


def test_each_mode_fills_as_it_says():
    for mode, values in (("const", 1), ("rand", 3), ("pixel", None)):
        for image in erased(mode):
            hole = image[:, (image != 7).any(axis=0)]
            assert hole.size
            assert len(np.unique(hole)) == (values or hole.size)
    assert set(np.unique(erased("const"))) == {0.0, 7.0}
    pixel = erased("pixel")
    noise = pixel[pixel != 7]
    assert abs(noise.mean()) < 0.05
    assert noise.std() == pytest.approx(1, abs=0.05)


def test_as_many_images_are_erased_as_re_prob_says():
    touched = (erased("const", 0.3, count=400) != 7).any(axis=(1, 2, 3))
    assert touched.mean() == pytest.approx(0.3, abs=0.08)
    assert (erased("const", 0.0) == 7).all()


def test_several_rectangles_together_erase_no_more_than_one_may():
    shares = (erased("const", rectangles=4, count=300) != 7).mean(axis=(1, 2, 3))
    assert shares.max() < ERASED_AREA[1] * 1.1


def test_augmix_mixes_the_image_with_its_chains():
    """Chain w holds only w + 1, the image 0: each mixture is within, and its weights sum to the share m."""
    images = np.zeros((300, 3, 2, 2), np.float32)
    chains = np.ones((3, 300, 3, 2, 2), np.float32)
    shares = mix_chains(images, chains, 1.0, rng())[:, 0, 0, 0]
    assert shares.min() >= 0
    assert shares.max() <= 1 + 1e-6
    assert shares.mean() == pytest.approx(0.5, abs=0.05)  # Beta(1, 1) is uniform
    assert shares.std() == pytest.approx(12**-0.5, abs=0.03)
    same = rng().normal(size=(4, 3, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(mix_chains(same, np.stack([same] * 2), 1.0, rng()), same, atol=1e-5)


def test_the_same_generator_gives_the_same_batch():
    images, labels = batch()
    mixing = Mixing(0.8, 1.0, 0.9, 0.5, "elem")
    for first, again in zip(mixed(mixing, images, labels, 4), mixed(mixing, images, labels, 4), strict=True):
        np.testing.assert_array_equal(first, again)
    assert not np.array_equal(mixed(mixing, images, labels, 4)[0], mixed(mixing, images, labels, 5)[0])
    np.testing.assert_array_equal(images, batch()[0])
