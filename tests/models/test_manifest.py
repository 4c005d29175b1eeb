"""The promises of models.manifest, and malformed manifests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import BundleError
from models.fields import inside
from models.manifest import MAX_SIDE, Manifest, Preprocess

Values = dict[str, Any]


def spoil(values: Values, key: str, value: object) -> str:
    """The manifest with the value at the dotted `key` replaced, as JSON."""
    *parents, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    place: Any = values
    for parent in parents:
        place = place[parent]
    place[last] = value
    return json.dumps(values)


def refusal(text: str | bytes) -> str:
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(text)
    return str(caught.value)


@pytest.mark.parametrize("version", [0, 2, "1", 1.0, True, None, [1]])
def test_an_unknown_schema_version_is_rejected_before_anything_else(version: object) -> None:
    message = refusal(json.dumps({"schema_version": version, "name": 7, "surprise": {}}))
    assert f"schema_version {version!r}" in message
    assert "this program reads 1" in message
    assert "name" not in message
    assert "surprise" not in message


def test_a_missing_schema_version_is_reported(values: Values) -> None:
    del values["schema_version"]
    assert "schema_version None" in refusal(json.dumps(values))


@pytest.mark.parametrize(
    "key",
    [
        "author",
        "network.depth",
        "preprocess.gamma",
        "labels.size",
        "artifacts.0.opset",
        "golden.count",
        "training.loss",
    ],
)
def test_an_unknown_key_names_the_key(values: Values, key: str) -> None:
    assert f"{key}: Extra inputs are not permitted" in refusal(spoil(values, key, 1))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 1),
        ("version", 1),
        ("created_at", 1738324800),
        ("network", []),
        ("network.num_classes", "3"),
        ("network.num_classes", 3.0),
        ("network.num_classes", True),
        ("network.parameters", None),
        ("preprocess.input_size", 8.0),
        ("preprocess.crop_pct", "0.5"),
        ("preprocess.antialias", "true"),
        ("preprocess.mean", 0.5),
        ("preprocess.mean.1", "0.5"),
        ("labels.sha256", 0),
        ("artifacts", {}),
        ("artifacts.0.batch", 4),
        ("golden.tolerance", 0.001),
        ("golden.tolerance.fp32", "0.001"),
        ("training.epochs", "90"),
    ],
)
def test_a_wrong_type_names_the_key(values: Values, key: str, value: object) -> None:
    assert key in refusal(spoil(values, key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "../tiny"),
        ("name", ""),
        ("name", "a" * 129),
        ("version", "1/2"),
        ("version", ".1"),
        ("created_at", "yesterday"),
        ("created_at", "2025-01-31T12:00:00"),
        ("created_at", "2025-13-31T12:00:00Z"),
        ("network.num_classes", 0),
        ("network.parameters", -1),
        ("preprocess.input_size", 0),
        ("preprocess.input_size", MAX_SIDE + 1),
        ("preprocess.input_size", 10**400),
        ("preprocess.crop_pct", 0),
        ("preprocess.crop_pct", 1.01),
        ("preprocess.crop_pct", 1e-6),
        ("preprocess.crop_pct", 5e-324),
        ("preprocess.crop_pct", float("nan")),
        ("preprocess.color", "BGR"),
        ("preprocess.resize", "stretch"),
        ("preprocess.interpolation", "area"),
        ("preprocess.antialias", False),
        ("preprocess.long_side_rounding", "ceil"),
        ("preprocess.crop_offset_rounding", "ceil"),
        ("preprocess.mean", [0.5, 0.5]),
        ("preprocess.mean", [0.5, 0.5, float("nan")]),
        ("preprocess.layout", "NHWC"),
        ("preprocess.dtype", "uint8"),
        ("labels.sha256", "0" * 63),
        ("labels.sha256", "A" * 64),
        ("artifacts", []),
        ("artifacts.0.format", "pickle"),
        ("artifacts.0.precision", "fp64"),
        ("artifacts.0.batch", "static"),
        ("artifacts.0.batch", []),
        ("artifacts.0.batch", [1, 0]),
        ("golden.tolerance", {"fp64": 1.0}),
        ("golden.tolerance.fp32", 0.0),
        ("golden.tolerance.fp32", float("inf")),
        ("temperature", 0.0),
        ("temperature", 101.0),
        ("training.top1", 76.3),
        ("training.top5", -0.1),
        ("training.epochs", -1),
    ],
)
def test_a_value_out_of_range_names_the_key(values: Values, key: str, value: object) -> None:
    message = refusal(spoil(values, key, value))
    assert message.startswith("manifest.json is not valid: ")
    assert key.rpartition(".")[2] in message


@pytest.mark.parametrize("key", ["mean", "std"])
def test_a_mean_or_std_over_1_is_recognised_as_0_to_255(values: Values, key: str) -> None:
    message = refusal(spoil(values, f"preprocess.{key}", [123.7, 116.3, 103.5]))
    assert f"{key} is in 0..1, not 0..255: (123.7, 116.3, 103.5)" in message


def test_a_std_of_0_is_rejected(values: Values) -> None:
    assert "std" in refusal(spoil(values, "preprocess.std", [0.2, 0.0, 0.2]))


@pytest.mark.parametrize(
    "key",
    ["name", "created_at", "network.num_classes", "preprocess.mean", "labels.sha256", "golden.tolerance", "training"],
)
def test_a_missing_key_is_named(values: Values, key: str) -> None:
    parent, _, last = key.rpartition(".")
    del (values[parent] if parent else values)[last]
    assert f"{key}: Field required" in refusal(json.dumps(values))


def test_all_problems_are_named_at_once(values: Values) -> None:
    values["network"]["num_classes"] = 0
    values["extra"] = 1
    message = refusal(json.dumps(values))
    assert "network.num_classes: " in message
    assert "extra: " in message


@pytest.mark.parametrize("place", ["labels", "artifacts.0", "golden"])
@pytest.mark.parametrize(
    "name",
    [
        "../labels.txt",
        "golden/../../labels.txt",
        "..",
        "/etc/passwd",
        "//etc/passwd",
        "golden\\labels.txt",
        "C:\\labels.txt",
        "",
        ".",
        "labels\0.txt",
        "labels\n.txt",
    ],
)
def test_no_file_name_may_leave_the_bundles_folder(values: Values, place: str, name: str) -> None:
    message = refusal(spoil(values, f"{place}.file", name))
    assert f"{place}.file: " in message
    assert f"{name!r} is not a file inside the bundle" in message


@pytest.mark.parametrize("name", ["labels.txt", "golden/golden.json", "a/b/c", "..labels", "a..b", "étiquettes.txt"])
def test_a_name_inside_the_bundle_is_accepted(name: str) -> None:
    assert inside(name) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '"manifest"',
        b"\xff\xfe",
        b'{"schema_version": 1, "name": "\xff"}',
        '{"schema_version": 1, "name": "\\ud800"}',
        "[" * 200_000,
        '{"schema_version": 1, "name": ' + '{"a":' * 200_000,
    ],
    ids=["empty", "cut", "null", "array", "string", "no UTF-8", "bad UTF-8", "half a surrogate", "deep", "deeper"],
)
def test_anything_but_a_json_object_is_a_bundle_error(text: str | bytes) -> None:
    assert refusal(text).startswith("manifest.json is not valid: ")


def test_two_artifacts_of_one_format_and_precision_are_rejected(values: Values) -> None:
    values["artifacts"].append(values["artifacts"][0] | {"file": "other.onnx"})
    assert "two of the same format and precision" in refusal(json.dumps(values))


def test_a_written_manifest_is_read_back_equal(values: Values) -> None:
    manifest = Manifest.from_json(json.dumps(values))
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest.from_json(manifest.to_json().encode()) == manifest


def test_the_written_manifest_has_the_promised_keys(values: Values) -> None:
    """These keys are the public interface: renaming one breaks every existing bundle."""
    written = json.loads(Manifest.from_json(json.dumps(values)).to_json())
    assert {key: sorted(value) for key, value in written.items() if isinstance(value, dict)} == {
        "network": ["num_classes", "parameters", "variant"],
        "preprocess": [
            "antialias",
            "color",
            "crop_offset_rounding",
            "crop_pct",
            "dtype",
            "input_size",
            "interpolation",
            "layout",
            "long_side_rounding",
            "mean",
            "resize",
            "std",
        ],
        "labels": ["file", "sha256"],
        "golden": ["file", "sha256", "tolerance"],
        "training": ["dataset", "epochs", "evaluated_on", "framework", "git_commit", "recipe", "top1", "top5"],
    }
    assert sorted(written["artifacts"][0]) == ["batch", "file", "format", "input", "output", "precision", "sha256"]
    assert sorted(set(written) - {"network", "preprocess", "labels", "golden", "training"}) == [
        "accuracy",
        "artifacts",
        "created_at",
        "name",
        "schema_version",
        "temperature",
        "version",
    ]


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


def test_a_manifest_without_a_temperature_has_1(values: Values) -> None:
    values.pop("temperature", None)
    assert Manifest.from_json(json.dumps(values)).temperature == 1.0


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


@pytest.mark.parametrize("batch", ["dynamic", [1], [1, 4, 8]])
def test_a_batch_is_dynamic_or_a_list_of_sizes(values: Values, batch: object) -> None:
    assert Manifest.from_json(spoil(values, "artifacts.0.batch", batch)).artifacts[0].batch == batch


def test_a_built_manifest_cannot_be_changed(values: Values) -> None:
    manifest = Manifest.from_json(json.dumps(values))
    with pytest.raises(ValueError, match="frozen"):
        manifest.name = "other"  # type: ignore[misc]  # the very thing that must fail


def spec(input_size: int, crop_pct: float) -> Preprocess:
    half = (0.5, 0.5, 0.5)
    return Preprocess(input_size=input_size, crop_pct=crop_pct, interpolation="bicubic", mean=half, std=half)


@pytest.mark.parametrize(
    ("input_size", "crop_pct", "resized"),
    [(224, 0.875, 256), (224, 1.0, 224), (320, 0.95, 336), (32, 1.0, 32), (288, 0.96, 300), (224, 0.9, 248)],
)
def test_the_resized_short_side_is_the_floor_of_input_size_over_crop_pct(
    input_size: int, crop_pct: float, resized: int
) -> None:
    assert spec(input_size, crop_pct).resize_size == resized


@given(st.integers(1, 512), st.floats(0.125, 1.0))
def test_the_crop_never_exceeds_the_resized_image(input_size: int, crop_pct: float) -> None:
    assert input_size <= spec(input_size, crop_pct).resize_size <= MAX_SIDE


KEYS = st.sampled_from(["schema_version", "name", "artifacts", "preprocess"]) | st.text(max_size=5)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


@given(JSON)
def test_any_other_json_is_a_bundle_error_that_names_the_file(value: object) -> None:
    assert refusal(json.dumps(value)).startswith("manifest.json ")


# Sizes apart from a crop's fraction, and where a bundle comes from


def test_a_bundle_that_needs_no_new_key_is_written_without_it(values: Values) -> None:
    written = json.loads(Manifest.from_json(json.dumps(values)).to_json())
    assert not written.keys() & {"source", "confidence"}
    assert "licence" not in written["training"]
    assert not written["preprocess"].keys() & {"resize_to", "icc"}


def test_an_explicit_size_replaces_the_fraction(values: Values) -> None:
    del values["preprocess"]["crop_pct"]
    values["preprocess"] |= {"resize_to": 9, "resize": "squash"}
    manifest = Manifest.from_json(json.dumps(values))
    assert manifest.preprocess.resize_size == 9
    assert "crop_pct" not in json.loads(manifest.to_json())["preprocess"]
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"resize_to": 9}, "crop_pct or resize_to must be given, and not both"),
        ({"crop_pct": None}, "crop_pct or resize_to must be given, and not both"),
        ({"crop_pct": None, "resize_to": 7}, "resize_to 7 is less than input_size 8"),
    ],
)
def test_a_size_is_given_once_and_covers_the_crop(values: Values, change: Values, why: str) -> None:
    values["preprocess"] |= change
    assert why in refusal(json.dumps(values))


def test_a_source_is_read_back_equal(values: Values) -> None:
    published = {"top1": 0.72, "dataset": "ImageNet-1k", "stated_by": "the model card"}
    values["source"] = {"address": "hf://a/b", "revision": "0" * 40, "licence": "mit", "published": published}
    manifest = Manifest.from_json(json.dumps(values))
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_licence_of_the_weights_is_read_back_equal(values: Values) -> None:
    values["training"]["licence"] = "research only"
    manifest = Manifest.from_json(json.dumps(values))
    assert Manifest.from_json(manifest.to_json()).training.licence == "research only"


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
