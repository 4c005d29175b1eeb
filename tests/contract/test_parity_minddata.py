"""Training and serving see the same pixels: ours against MindSpore's C++ operators, on real photos.

MindSpore's pipeline `Decode, Resize(256, Inter.PILCUBIC), CenterCrop(224), Normalize, HWC2CHW` is what a network
trained elsewhere with MindSpore was measured with; such a network keeps its accuracy here.
"""

from __future__ import annotations

import os
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from models.manifest import Preprocess
from models.preprocess import decode, open_image, resize_and_crop, to_tensor

PHOTOS = Path(__file__).parents[3] / "shared/data/imagenet_samples.tar"
SPEC = Preprocess(
    input_size=224,
    crop_pct=0.875,
    interpolation="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)

pytestmark = pytest.mark.skipif(
    not PHOTOS.is_file(), reason="the photos ../shared/data/imagenet_samples.tar are absent"
)


@pytest.fixture(scope="module")
def vision() -> Any:
    """mindspore.dataset.vision, imported late because that takes seconds."""
    # Must be set before the import: under AVX-512 oneDNN falls back to a convolution a hundred times slower, and
    # other tests in this process may train.
    os.environ.setdefault("DNNL_MAX_CPU_ISA", "AVX2")
    with warnings.catch_warnings():
        # Some versions emit deprecation warnings about themselves when imported; pytest would turn them into errors.
        warnings.simplefilter("ignore")
        return pytest.importorskip("mindspore.dataset.vision", reason="mindspore is not installed")


class Pair(NamedTuple):
    """A photo's stored mode, and the largest differences between the two crops and between the two tensors."""

    mode: str
    decoded_equal: bool
    crop_delta: int
    tensor_delta: float


def photos() -> Iterator[bytes]:
    with tarfile.open(PHOTOS) as archive:
        for member in archive:
            if file := archive.extractfile(member):
                yield file.read()


@pytest.fixture(scope="module")
def pairs(vision: Any) -> list[Pair]:
    resize = vision.Resize(SPEC.resize_size, vision.Inter.PILCUBIC)
    centre = vision.CenterCrop(SPEC.input_size)
    normalise = vision.Normalize([255 * value for value in SPEC.mean], [255 * value for value in SPEC.std])
    to_chw = vision.HWC2CHW()

    def compare(encoded: bytes) -> Pair:
        ours = decode(encoded, icc=SPEC.icc)  # MindSpore ignores colour profiles
        theirs = vision.Decode()(np.frombuffer(encoded, np.uint8))
        crop = centre(resize(theirs))
        return Pair(
            open_image(encoded).mode,
            np.array_equal(np.asarray(ours), theirs),
            int(np.abs(np.asarray(resize_and_crop(ours, SPEC), np.int16) - crop).max()),
            float(np.abs(to_tensor(ours, SPEC) - to_chw(normalise(crop))).max()),
        )

    return [compare(encoded) for encoded in photos()]


def test_decoded_pixels_equal_mindspores_in_grey_photos_too(pairs: list[Pair]) -> None:
    assert len(pairs) == 250
    assert {pair.mode for pair in pairs} == {"RGB", "L"}
    assert all(pair.decoded_equal for pair in pairs)


def test_crops_equal_mindspores_bit_for_bit(pairs: list[Pair]) -> None:
    """Measured once: 999 of 1000 photos. This set is a quarter of those."""
    assert sum(pair.crop_delta == 0 for pair in pairs) >= 249
    assert max(pair.crop_delta for pair in pairs) <= 13


def test_tensors_of_equal_crops_differ_by_rounding_only(pairs: list[Pair]) -> None:
    assert max(pair.tensor_delta for pair in pairs if pair.crop_delta == 0) < 1e-6
