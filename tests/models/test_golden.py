"""The promises of models.golden."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models import golden
from models.errors import BundleError
from models.preprocess import preprocess
from models.store import Bundle

Tensor = NDArray[np.float32]


def engine(bundle: Bundle, change: Callable[[Tensor], Tensor] = lambda logits: logits) -> golden.Infer:
    """An engine with the expected logits for the golden images in any order, modified by `change`."""
    tensors, logits = golden.load(bundle)
    answers = {tensor.tobytes(): row for tensor, row in zip(tensors, logits, strict=True)}

    def infer(images: Tensor) -> Tensor:
        assert images.dtype == np.float32
        return change(np.stack([answers[image.tobytes()] for image in images]))

    return infer


def spoil(bundle: Bundle, content: str) -> Bundle:
    """Replace golden.json after the bundle is opened; before, its checksum would reveal it."""
    (bundle.folder / golden.FILE).write_text(content, encoding="utf-8")
    return bundle


def refusal(bundle: Bundle) -> str:
    with pytest.raises(BundleError) as caught:
        golden.load(bundle)
    return str(caught.value)


def test_a_correct_engine_passes(bundle: Bundle) -> None:
    report = golden.check(bundle, "fp32", engine(bundle))
    assert report == golden.GoldenReport(max_delta=0.0, tolerance=0.001, top1_agreement=1.0)
    assert report.ok


@pytest.mark.parametrize(
    ("precision", "offset", "ok"),
    [("fp32", 0.0009, True), ("fp32", 0.0011, False), ("int8", 0.4, True), ("int8", 0.6, False)],
)
def test_an_engine_fails_if_its_logits_differ_by_more_than_the_tolerance(
    bundle: Bundle, precision: Any, offset: float, ok: bool
) -> None:
    def last_one_off(logits: Tensor) -> Tensor:
        shifted = logits.copy()
        shifted[-1, -1] -= offset
        return shifted

    report = golden.check(bundle, precision, engine(bundle, last_one_off))
    assert report.ok is ok
    assert report.max_delta == pytest.approx(offset, rel=1e-4)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_an_engine_fails_if_its_logits_are_nan(bundle: Bundle, wrong: float) -> None:
    def one_wrong(logits: Tensor) -> Tensor:
        spoiled = logits.copy()
        spoiled[0, 1] = wrong
        return spoiled

    report = golden.check(bundle, "int8", engine(bundle, one_wrong))
    assert (report.max_delta, report.ok) == (math.inf, False)


@pytest.mark.parametrize(
    "cut",
    [lambda logits: logits[:, :1], lambda logits: logits[0], lambda logits: logits[:0], lambda logits: logits[0, 0]],
    ids=["(1, 1)", "(K,)", "(0, K)", "()"],
)
def test_an_engine_fails_if_its_logits_have_another_shape(bundle: Bundle, cut: Callable[[Tensor], Tensor]) -> None:
    """Some of these shapes would broadcast and might pass by chance."""
    report = golden.check(bundle, "int8", engine(bundle, cut))
    assert (report.max_delta, report.ok) == (math.inf, False)


def test_a_precision_without_a_tolerance_is_rejected(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="the manifest gives no golden tolerance for precision bf16"):
        golden.check(bundle, "bf16", engine(bundle))


@pytest.mark.parametrize("name", ["one.png", "more/two.png"])
@pytest.mark.parametrize("place", [0, 500, -1])
def test_a_golden_image_that_changed_is_a_bundle_error_not_a_failed_engine(
    bundle: Bundle, name: str, place: int
) -> None:
    path = bundle.folder / "golden" / name
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert refusal(bundle).startswith(f"{path} is corrupt: its sha256 is ")


def test_a_golden_image_that_is_missing_is_a_bundle_error(bundle: Bundle) -> None:
    (bundle.folder / "golden/one.png").unlink()
    assert refusal(bundle) == f"{bundle.folder / 'golden/one.png'} is missing; copy the bundle again"


def test_a_golden_image_outside_the_bundle_is_a_bundle_error(bundle: Bundle) -> None:
    image = bundle.folder / "golden/one.png"
    image.rename(bundle.folder.parent / "one.png")
    image.symlink_to("../../one.png")
    assert refusal(bundle) == f"{image} is outside the bundle"


def test_the_images_take_the_same_path_as_a_clients(bundle: Bundle) -> None:
    tensors, logits = golden.load(bundle)
    encoded = (bundle.folder / "golden/one.png").read_bytes()
    assert tensors.shape == (2, 3, 8, 8)
    assert np.array_equal(tensors[0], preprocess(encoded, bundle.manifest.preprocess))
    assert logits.tolist() == [[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]]
    assert (tensors.dtype, logits.dtype) == (np.float32, np.float32)


def test_bytes_that_are_not_an_image_are_a_bundle_error(bundle: Bundle) -> None:
    (bundle.folder / "golden/one.png").write_bytes(b"text")
    entry = {"file": "one.png", "sha256": hashlib.sha256(b"text").hexdigest(), "logits": [0, 0, 0]}
    spoiled = spoil(bundle, json.dumps({"images": [entry]}))
    assert "golden/one.png is not a usable golden image: not a readable image" in refusal(spoiled)


SHA = "0" * 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not valid: Invalid JSON"),
        ("[" * 100_000, "is not valid: Invalid JSON: recursion limit"),
        ("[]", "is not valid: Input should be an object"),
        ("{}", "images: Field required"),
        ('{"images": []}', "must hold at least one image, each with 3 logits"),
        (f'{{"images": [{{"file": "a", "sha256": "{SHA}", "logits": [1, 2]}}]}}', "each with 3 logits"),
        (f'{{"images": [{{"file": "../a", "sha256": "{SHA}", "logits": [1, 2, 3]}}]}}', "images.0.file: "),
        ('{"images": [{"file": "a", "sha256": "0", "logits": [1, 2, 3]}]}', "images.0.sha256: "),
        (f'{{"images": [{{"file": "a", "sha256": "{SHA}", "logits": [1, NaN, 3]}}]}}', "images.0.logits.1: "),
        (f'{{"images": [{{"file": "a", "sha256": "{SHA}", "logits": [1, "2", 3]}}]}}', "images.0.logits.1: "),
        (f'{{"images": [{{"file": "a", "sha256": "{SHA}", "logits": [1, 2, 3], "x": 1}}]}}', "images.0.x: Extra"),
        ('{"images": [], "pictures": []}', "pictures: Extra inputs are not permitted"),
    ],
)
def test_a_golden_file_that_is_not_valid_names_the_key(bundle: Bundle, content: str, message: str) -> None:
    spoiled = spoil(bundle, content)
    assert refusal(spoiled).startswith(f"{bundle.folder / golden.FILE} ")
    assert message in refusal(spoiled)


def test_pack_preserves_every_bit_of_the_logits() -> None:
    """float32 logits survive the decimal digits of JSON exactly."""
    logits = np.random.default_rng(7).normal(0, 9, (1, 3)).astype(np.float32)
    packed = golden.pack({"a.png": b"bytes"}, logits)  # type: ignore[arg-type]  # rows of numpy floats
    written = json.loads(packed[golden.FILE])["images"][0]["logits"]
    assert np.array_equal(np.asarray(written, np.float32), logits[0])
    assert packed["golden/a.png"] == b"bytes"


@pytest.mark.parametrize(
    ("images", "logits"),
    [({"../a": b""}, [[0.0]]), ({"a": b""}, [[math.nan]]), ({"a": b""}, [[math.inf]]), ({"a": b""}, [])],
    ids=["a name that leads out", "NaN", "infinity", "fewer rows than images"],
)
def test_pack_rejects_what_load_would_reject(images: dict[str, bytes], logits: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"is not a file inside|finite number|shorter than"):
        golden.pack(images, logits)
