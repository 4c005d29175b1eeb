"""Pictures that other people's bug reports describe, if they are beside the checkout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.preprocess import decode

CASES = Path(__file__).parents[3] / "shared/cases/images"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the pictures ../shared/cases/images are absent")


def shown(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.asarray(decode((CASES / name).read_bytes()), np.int16)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("png-iccp-1.5MB.png", "ref.png"),
        ("png-badcrc-phys.png", "ref.png"),
        ("png-gama-short.png", "ref.png"),
        ("png-phys-short.png", "ref.png"),
        ("jpg-noeoi.jpg", "j.jpg"),
        ("tif-float32-1.0001.tif", "tif-float32-01.tif"),
    ],
)
def test_metadata_and_a_sample_over_white_decide_nothing(name: str, right: str) -> None:
    assert np.abs(shown(name) - shown(right)).max() <= 1


@pytest.mark.parametrize("name", ["tif-grey16-miniswhite.tif", "tif-grey32u.tif", "tif-pal8-8bitmap.tif"])
def test_samples_are_what_they_mean(name: str) -> None:
    """Each has dark and bright parts; read wrongly, they are black, white or a negative."""
    picture = shown(name)
    assert picture.min() == 0
    assert picture.max() == 255


def test_what_is_transparent_is_white() -> None:
    assert (shown("gif-offset.gif")[0, 0] == 255).all()
    assert (shown("png-grey2-trns1.png") != 85).all()


def test_an_embedded_profile_is_converted() -> None:
    encoded = (CASES / "icc-P3.png").read_bytes()
    assert not np.array_equal(np.asarray(decode(encoded)), np.asarray(decode(encoded, icc="ignore")))
