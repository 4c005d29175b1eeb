"""The promises of hub.conversion.transformers: each image processor's defaults and arithmetic."""

from __future__ import annotations

from typing import Any

import pytest

from hub.conversion import transformers
from hub.errors import Unusable

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

# config -> (side of the input, side to resize to, resize, filter)
GEOMETRY: list[tuple[str, dict[str, Any], tuple[int, int, str, str]]] = [
    ("ViTImageProcessor", {}, (224, 224, "squash", "bilinear")),
    ("ViTImageProcessorFast", {"size": {"height": 384, "width": 384}}, (384, 384, "squash", "bilinear")),
    ("ViTFeatureExtractor", {"size": 224, "resample": 3}, (224, 224, "squash", "bicubic")),
    ("DeiTImageProcessor", {}, (224, 256, "squash", "bicubic")),
    ("ConvNextFeatureExtractor", {"size": 224, "crop_pct": 0.875}, (224, 256, "shortest_side", "bilinear")),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}, (224, 256, "shortest_side", "bilinear")),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}, (384, 384, "squash", "bilinear")),
    ("BitImageProcessor", {"size": {"shortest_edge": 256}}, (224, 256, "shortest_side", "bicubic")),
    ("MobileNetV2ImageProcessor", {}, (224, 256, "shortest_side", "bilinear")),
    ("LevitImageProcessor", {}, (224, 256, "shortest_side", "bicubic")),
    ("PoolFormerImageProcessor", {}, (224, 248, "shortest_side", "bicubic")),
    ("EfficientNetImageProcessor", {"size": {"height": 240, "width": 240}}, (240, 240, "squash", "nearest")),
]


@pytest.mark.parametrize(("name", "config", "expected"), GEOMETRY, ids=range(len(GEOMETRY)))
def test_a_missing_key_has_the_default_of_its_processor(
    name: str, config: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    key = "image_processor_type" if "Processor" in name else "feature_extractor_type"
    spec = transformers.preprocessing({key: name, **config})
    assert (spec.input_size, spec.resize_size, spec.resize, spec.interpolation) == expected
    assert spec.crop_offset_rounding == "floor"


VALUES: list[tuple[dict[str, Any], float, float]] = [
    ({}, (0.4 - 0.5) / 0.5, 0.4),
    ({"do_normalize": False}, 0.4, 0.4),
    ({"do_normalize": False, "rescale_factor": 1 / 127.5}, 0.8, 0.4),
    ({"do_rescale": False, "do_normalize": False}, 0.4 * 255, 0.4),
    ({"image_mean": [0.4], "image_std": 0.2}, 0.0, 0.4),
]


@pytest.mark.parametrize(("change", "expected", "pixel"), VALUES)
def test_rescaling_and_normalising_become_mean_and_deviation(
    change: dict[str, Any], expected: float, pixel: float
) -> None:
    spec = transformers.preprocessing({"image_processor_type": "ViTImageProcessor", **change})
    assert (pixel - spec.mean[0]) / spec.std[0] == pytest.approx(expected, abs=1e-6)


def test_efficientnet_divides_by_the_deviation_twice_and_may_shift() -> None:
    config = {"image_processor_type": "EfficientNetImageProcessor", "size": {"height": 64, "width": 64}, **IMAGENET}
    spec = transformers.preprocessing(config)
    assert (0.4 - spec.mean[0]) / spec.std[0] == pytest.approx((0.4 - 0.485) / 0.229 / 0.229)
    spec = transformers.preprocessing(
        config | {"rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": False}
    )
    assert (0.4 - spec.mean[0]) / spec.std[0] == pytest.approx((0.8 - 1 - 0.485) / 0.229)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"image_processor_type": "ViTimageProcesor"}, "the nearest is ViTImageProcessor"),
    ({}, "image_processor_type None"),
    ({"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 224}}, "size {'longest_edge': 224}"),
    ({"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 112}}, "size {'height'"),
    ({"image_processor_type": "ViTImageProcessor", "do_resize": False}, "do_resize False"),
    ({"image_processor_type": "ViTImageProcessor", "do_pad": True}, "do_pad True"),
    ({"image_processor_type": "MobileViTImageProcessor"}, "do_flip_channel_order True"),
    ({"image_processor_type": "BitImageProcessor", "crop_size": 300}, "crop_size 300 is more than size 224"),
    ({"image_processor_type": "ViTImageProcessor", "resample": 9}, "resample 9"),
    ({"image_processor_type": "ViTImageProcessor", "image_mean": [0.5, 0.5]}, "image_mean"),
    ({"image_processor_type": "ViTImageProcessor", "rescale_factor": 0}, "rescale_factor 0"),
]


@pytest.mark.parametrize(("config", "why"), REFUSED, ids=range(len(REFUSED)))
def test_what_a_bundle_cannot_say_is_refused_by_its_key(config: dict[str, Any], why: str) -> None:
    with pytest.raises(Unusable) as caught:
        transformers.preprocessing(config)
    assert why in str(caught.value)


def test_a_model_of_another_task_is_refused() -> None:
    with pytest.raises(Unusable, match="architectures BertForMaskedLM: not an image classifier"):
        transformers.check_is_classifier({"architectures": ["BertForMaskedLM"]})
    with pytest.raises(Unusable, match="problem_type 'multi_label_classification'"):
        transformers.check_is_classifier({"problem_type": "multi_label_classification"})


def test_labels_with_gaps_and_placeholders() -> None:
    assert transformers.labels({"id2label": {"1": "dog", "0": "cat"}})[0] == ["cat", "dog"]
    assert transformers.labels({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}})[0] == ["class 0", "class 1"]
    for wrong in ({}, {"id2label": {"0": "cat", "2": "dog"}}, {"id2label": {"cat": 0}}):
        with pytest.raises(Unusable, match="id2label"):
            transformers.labels(wrong)
