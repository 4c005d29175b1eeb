"""Promise 2 of models.preprocess: whatever is wrong with the bytes is an ImageError, never another exception.

Seeded, so that a failure comes again; the message of a failed assertion holds the bytes.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from models.errors import ImageError
from models.manifest import Preprocess
from models.preprocess import preprocess
from tests.mutants import PICTURES, mutant, with_right_checksums

# As in production, where models.preprocess silences Pillow; pytest would make errors of its warnings.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

HALF = (0.5, 0.5, 0.5)
SPEC = Preprocess(input_size=8, interpolation="bicubic", crop_pct=1.0, icc="srgb", mean=HALF, std=HALF)
MUTANTS = 400


def outcome(encoded: bytes) -> str:
    """`tensor` or the code of an ImageError; anything else fails the test. Few pixels allowed, to keep it quick."""
    try:
        tensor = preprocess(encoded, SPEC, max_pixels=200_000)
    except ImageError as error:
        return error.code
    except Exception as error:  # noqa: BLE001  # the very thing looked for, kept with the bytes that did it
        pytest.fail(f"{error!r} from {encoded.hex()}")
    assert tensor.shape == (3, 8, 8)
    assert np.isfinite(tensor).all()
    return "tensor"


@pytest.mark.parametrize("name", PICTURES)
def test_whatever_bytes_are_wrong_it_is_an_image_error(name: str) -> None:
    """Half of the mutants anywhere, half in the header, where the decoders take their decisions."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    encoded = PICTURES[name]
    assert outcome(encoded) == "tensor"
    outcomes = {outcome(mutant(encoded, random, len(encoded) if i % 2 else 120)) for i in range(MUTANTS)}
    assert "undecodable_image" in outcomes
    assert outcomes <= {"tensor", "undecodable_image", "too_many_pixels"}


@pytest.mark.parametrize("name", [name for name in PICTURES if name.startswith("png")])
def test_whatever_a_png_says_under_right_checksums_it_is_an_image_error(name: str) -> None:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    encoded = PICTURES[name]
    assert with_right_checksums(encoded) == encoded
    outcomes = [outcome(with_right_checksums(mutant(encoded, random, 140))) for _ in range(MUTANTS)]
    assert {"tensor", "undecodable_image"} <= set(outcomes)


@pytest.mark.parametrize("name", PICTURES)
def test_wherever_a_picture_is_cut_it_is_an_image_error(name: str) -> None:
    encoded = PICTURES[name]
    cuts = np.linspace(0, len(encoded) - 1, 120, dtype=int)
    outcomes = [outcome(encoded[:cut]) for cut in cuts]
    assert set(outcomes) <= {"tensor", "undecodable_image"}
    assert outcomes[0] == "undecodable_image"


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive", "png", "png palette", "png 16 bit"])
def test_a_picture_without_its_second_half_is_never_shown(name: str) -> None:
    """Half a picture would be classified as something that it is not."""
    encoded = PICTURES[name]
    assert {outcome(encoded[:cut]) for cut in range(0, len(encoded) * 3 // 4)} == {"undecodable_image"}


@pytest.mark.parametrize("length", [1, 2, 3, 4, 8, 16, 100, 5000])
def test_random_bytes_are_an_image_error(length: int) -> None:
    random = np.random.default_rng(length)
    assert {outcome(random.bytes(length)) for _ in range(50)} == {"undecodable_image"}


@pytest.mark.parametrize("name", PICTURES)
def test_bytes_behind_the_picture_do_no_harm(name: str) -> None:
    assert outcome(PICTURES[name] + b"trailing" * 100) == "tensor"


def test_no_file_writes_to_the_log_or_to_stderr(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    fax = PICTURES["tiff group4"]
    many_samples = PICTURES["tiff"].replace(struct.pack("<HHIH", 277, 3, 1, 3), struct.pack("<HHIH", 277, 3, 1, 99))
    for encoded in (fax[:60], fax.replace(fax[8:40], bytes(range(32))), many_samples):
        assert outcome(encoded) == "undecodable_image"
    random = np.random.default_rng(0)
    assert {outcome(mutant(fax, random, len(fax))) for _ in range(200)} >= {"undecodable_image"}
    assert (capfd.readouterr().err, caplog.records) == ("", [])
