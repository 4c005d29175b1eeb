"""The filters whiten the patches they were computed from: checked with correlated noise, without a framework."""

import numpy as np
import pytest

from training.network.whitening import patch_covariance, whitening_kernels


def smooth_images(count=8, size=24):
    """Noise with correlated neighbours and correlated channels, as in photos."""
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(count, 3, size, size)) + rng.normal(size=(count, 1, size, size))
    return (noise + np.roll(noise, 1, 2) + np.roll(noise, 1, 3)).astype(np.float32)


def patches_of(images):
    """(patches, 27), written out pixel by pixel."""
    down, across = images.shape[2] - 2, images.shape[3] - 2
    cut = [image[:, y : y + 3, x : x + 3].ravel() for image in images for y in range(down) for x in range(across)]
    return np.array(cut, np.float64)


def test_the_responses_of_the_filters_are_uncorrelated_with_variance_1():
    images = smooth_images()
    kernels = whitening_kernels(patch_covariance(images), 54)
    answers = patches_of(images) @ kernels[:27].reshape(27, 27).T
    np.testing.assert_allclose(answers.T @ answers / len(answers), np.eye(27), atol=0.02)


def test_each_filter_has_its_negative():
    kernels = whitening_kernels(patch_covariance(smooth_images()), 16)
    assert kernels.shape == (16, 3, 3, 3)
    assert kernels.dtype == np.float32
    np.testing.assert_array_equal(kernels[8:], -kernels[:8])


@pytest.mark.parametrize(("width", "filters"), [(33, 32), (48, 48), (64, 54)])
def test_a_stem_of_odd_or_large_width_keeps_some_random_kernels(width, filters):
    assert len(whitening_kernels(patch_covariance(smooth_images()), width)) == filters


def test_the_strongest_components_come_first():
    covariance = patch_covariance(smooth_images())
    few, many = whitening_kernels(covariance, 8), whitening_kernels(covariance, 54)
    np.testing.assert_array_equal(few[:4], many[:4])
    strength = [k.ravel() @ covariance @ k.ravel() / (k**2).sum() for k in many[:27].astype(np.float64)]
    assert strength == sorted(strength, reverse=True)


def test_a_direction_without_variance_is_not_amplified():
    grey = np.repeat(smooth_images()[:, :1], 3, axis=1)  # colour never varies
    assert np.abs(whitening_kernels(patch_covariance(grey), 54)).max() < 100


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="needs at least one image"):
        patch_covariance([])
