from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.manifest import Preprocess
from models.preprocess import to_tensor
from service.observe.drift import SAMPLED_SIDE, SIGNALS, input_signals


def spec(side: int) -> Preprocess:
    means, deviations = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    return Preprocess(input_size=side, interpolation="bicubic", crop_pct=1.0, mean=means, std=deviations)


def signals_of(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Of a square of pixels (S, S, 3), as the service sees it."""
    found = input_signals(to_tensor(Image.fromarray(pixels), spec(len(pixels))), spec(len(pixels)))
    return found["input_brightness"], found["input_contrast"]


@pytest.mark.parametrize("side", [8, SAMPLED_SIDE, 33, 63])
def test_brightness_and_contrast_are_those_of_the_pixels(side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    assert signals_of(pixels) == pytest.approx((pixels.mean() / 255, pixels.std() / 255), abs=1e-5)


def test_black_is_0_white_is_1_and_neither_has_contrast() -> None:
    for shade in (0, 255):
        pixels = np.full((32, 32, 3), shade, np.uint8)
        assert signals_of(pixels) == pytest.approx((shade / 255, 0.0), abs=1e-3)


def test_a_large_image_is_sampled() -> None:
    pixels = np.broadcast_to(np.linspace(0, 255, 224).astype(np.uint8)[None, :, None], (224, 224, 3)).copy()
    assert signals_of(pixels) == pytest.approx((pixels.mean() / 255, pixels.std() / 255), abs=0.02)


def test_a_tensor_that_was_never_normalised_stands_out() -> None:
    found = input_signals(np.full((3, 32, 32), 200.0, np.float32), spec(32))
    assert found["input_brightness"] > max(SIGNALS["input_brightness"][1])
    assert input_signals(np.full((3, 32, 32), -200.0, np.float32), spec(32))["input_brightness"] == 0.0


def test_the_buckets_rise_and_begin_above_0() -> None:
    """OpenMetrics has no sum for a histogram with a bucket below 0."""
    for name, (_, bounds) in SIGNALS.items():
        assert list(bounds) == sorted(set(bounds)), name
        assert bounds[0] > 0
