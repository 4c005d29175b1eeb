"""What a manifest vouches for: precisions, fast pixels, and the confidence of answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from models.errors import BundleError
from models.manifest import Manifest
from tests.models.manifests import Values, refusal


def vouching(values: Values, tolerance: Values, accuracy: Values | None) -> Manifest:
    values["golden"]["tolerance"] = tolerance
    return Manifest.from_json(json.dumps(values | {"accuracy": accuracy}))


@pytest.mark.parametrize(
    ("precision", "top1", "doubt"),
    [
        ("fp32", None, None),
        ("bf16", None, None),
        ("fp16", None, "the manifest gives no golden tolerance for fp16"),
        ("int8", None, "the manifest gives no top-1 of int8"),
        ("int8", 0.856, None),
        ("int8", 0.85, None),
        ("int8", 0.84, "int8 loses 1.50% of top-1, but the manifest allows 0.50%"),
        ("bf16", 0.84, "bf16 loses 1.50% of top-1, but the manifest allows 0.50%"),
    ],
)
def test_it_vouches_for_a_precision_only_by_its_golden_tolerance_and_its_measured_accuracy(
    values: Values, precision: Any, top1: float | None, doubt: str | None
) -> None:
    accuracy = None if top1 is None else {"top1": {"fp32": 0.855, precision: top1}, "max_top1_drop": 0.005}
    manifest = vouching(values, {"fp32": 0.001, "bf16": 0.1, "int8": 0.5}, accuracy)
    assert manifest.doubt(precision) == doubt


def test_an_accuracy_names_fp32_with_which_the_others_are_compared(values: Values) -> None:
    values["accuracy"] = {"top1": {"int8": 0.8}, "max_top1_drop": 0.005}
    assert "accuracy: Value error, top1 must name fp32" in refusal(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        ({}, None),
        ({"images": 150, "agreement": 0.98, "fast_top1": 0.85}, None),
        ({"fast_top1": 0.9}, None),
        ({"images": 149}, "fast pixels were measured on 149 large photos; at least 150 are needed"),
        ({"agreement": 0.979}, "fast pixels keep 97.90% of the answers, but at least 98% is needed"),
        ({"fast_top1": 0.84}, "fast pixels lose 1.50% of top-1; at most 0.50% is allowed"),
    ],
)
def test_it_vouches_for_fast_pixels_only_by_what_they_were_measured_to_change_on_enough_large_photos(
    values: Values, change: Values, doubt: str | None
) -> None:
    measured = {"images": 500, "agreement": 0.99, "exact_top1": 0.855, "fast_top1": 0.855} | change
    accuracy = {"top1": {"fp32": 0.86}, "max_top1_drop": 0.005, "fast_pixels": measured}
    assert vouching(values, {"fp32": 0.001}, accuracy).doubt_of_fast_pixels() == doubt


@pytest.mark.parametrize("accuracy", [None, {"top1": {"fp32": 0.86}, "max_top1_drop": 0.005}])
def test_fast_pixels_that_were_not_measured_are_not_vouched_for(values: Values, accuracy: Values | None) -> None:
    manifest = vouching(values, {"fp32": 0.001}, accuracy)
    assert manifest.doubt_of_fast_pixels() == "the manifest gives no accuracy of fast pixels"


CONFIDENCE: Values = {
    **{"fitted_at": "2026-11-29T12:00:00Z", "images": 500, "foreign_images": 20, "precision": "fp32"},
    **{
        "threshold": -0.5,
        "weights": [0.5] * 7,
        "embedding_weights": [0.1],
        "accuracy": 0.9,
        "answered": 0.6,
        "kept": 0.95,
        "refused": 0.5,
    },
    "quantiles": {"0.9": 0.5, "0.95": 0.75},
}


def test_a_confidence_is_read_back_equal(values: Values) -> None:
    values["confidence"] = CONFIDENCE
    manifest = Manifest.from_json(json.dumps(values))
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert json.loads(manifest.to_json())["confidence"] == CONFIDENCE
    assert manifest.confidence is not None
    assert manifest.confidence.quantiles == {0.9: 0.5, 0.95: 0.75}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"weights": [0.5] * 4}, "confidence.weights: 7 are needed for 3 classes, not 4"),
        ({"quantiles": {}}, "confidence.quantiles"),
        ({"quantiles": {"95": 0.5}}, "confidence.quantiles"),
        ({"quantiles": {"0.95": 1.5}}, "confidence.quantiles"),
        ({"images": 0}, "confidence.images"),
        ({"fitted_at": "yesterday"}, "confidence.fitted_at"),
    ],
)
def test_a_confidence_that_cannot_be_names_the_key(values: Values, change: Values, why: str) -> None:
    values["confidence"] = CONFIDENCE | change
    assert why in refusal(json.dumps(values))


def test_a_confidence_is_for_one_label_an_image(values: Values) -> None:
    values["confidence"], values["labels"] = CONFIDENCE, {**values["labels"], "multi": True}
    with pytest.raises(BundleError, match="confidence: only for bundles with one label per image"):
        Manifest.from_json(json.dumps(values))
