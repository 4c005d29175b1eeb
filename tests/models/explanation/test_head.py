"""The matrix after the last feature map, where it is found, and the part of a photo that it explains."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

from models import golden
from models.errors import BundleError
from models.explanation.features import explained, without_features
from models.explanation.head import Head, pooled, read_head, tolerance
from models.manifest import Features, Preprocess
from models.preprocess import decode, open_image, resize_and_crop, seen_box, upright_size
from models.store import Bundle, open_bundle

RNG = np.random.default_rng(0)
FEATURES = RNG.random((8, 3, 5), np.float32)
HEAD = Head(RNG.normal(size=(4, 8)).astype(np.float32), RNG.normal(size=4).astype(np.float32))
BOX = (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return open_bundle("repvgg-tiny-cifar10")


def test_each_cell_s_contribution_is_exact() -> None:
    logits = HEAD.logits(FEATURES).astype(np.float32)
    cam = HEAD.explain(FEATURES, logits, 2, BOX)
    for row, column in ((0, 0), (2, 4)):
        assert cam.grid[row, column] == pytest.approx(HEAD.weight[2] @ FEATURES[:, row, column] / 15, rel=1e-5)
    assert cam.grid.sum() + cam.bias == pytest.approx(cam.logit)
    assert cam.bias == pytest.approx(HEAD.bias[2], abs=1e-5)


def test_features_of_another_network_are_no_explanation() -> None:
    logits = HEAD.logits(FEATURES[None]).astype(np.float32)
    assert HEAD.delta(FEATURES[None], logits) < tolerance(logits)
    assert HEAD.delta(FEATURES[None] + np.float32(0.01), logits) > tolerance(logits)
    assert HEAD.delta(FEATURES[None, :4], logits) == np.inf
    assert HEAD.delta(FEATURES[None] * np.float32("nan"), logits) == np.inf


def test_pooled_features_are_means_and_may_have_length_1() -> None:
    np.testing.assert_allclose(pooled(FEATURES, normalize=False), FEATURES.mean((1, 2)), rtol=1e-6)
    assert np.linalg.norm(pooled(FEATURES, normalize=True)) == pytest.approx(1)
    assert not pooled(np.zeros_like(FEATURES), normalize=True).any()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_matrix_of_a_bundle_is_that_of_its_artifact(shipped: Bundle, precision: Any) -> None:
    artifact = shipped.artifact(["onnx"], precision)
    model, head = onnx.load_model(shipped.path(artifact)), read_head(shipped, artifact)
    found = explained(model)
    assert head is not None
    assert found is not None
    np.testing.assert_array_equal(found.head.weight, head.weight)
    arrays = {array.name: numpy_helper.to_array(array) for array in model.graph.initializer}
    if precision == "fp32":
        np.testing.assert_array_equal(head.weight, arrays["classifier.weight"])
    else:  # symmetric, with one scale for each class
        steps = arrays["classifier.weight_quantized"] * arrays["classifier.weight_scale"].reshape(-1, 1)
        np.testing.assert_allclose(head.weight, steps, rtol=1e-6)


def test_a_matrix_of_another_size_is_refused(shipped: Bundle, tmp_path: Path) -> None:
    (tmp_path / "head.npz").write_bytes(HEAD.encode())
    artifact = shipped.artifact(["onnx"], "fp32").model_copy(
        update={"features": Features(output="features", head="head.npz", sha256="0" * 64)}
    )
    with pytest.raises(BundleError, match=r"must hold float32 `weight` \(10, C\) and `bias` \(10,\), not"):
        read_head(Bundle(tmp_path, shipped.manifest, shipped.labels), artifact)
    (tmp_path / "head.npz").write_bytes(b"PK noise")
    with pytest.raises(BundleError, match=r"is not an \.npz file"):
        read_head(Bundle(tmp_path, shipped.manifest, shipped.labels), artifact)


def network(*tail: Any, **arrays: Any) -> onnx.ModelProto:
    """A convolution to 8 channels of 4 x 4, and these nodes from `map` to `logits`."""
    weights = {"kernel": RNG.normal(size=(8, 3, 3, 3)), **arrays}
    convolution = helper.make_node("Conv", ["image", "kernel"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1])
    graph = helper.make_graph(
        [convolution, *tail],
        "test",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])],
        [
            numpy_helper.from_array(np.asarray(array, np.int64 if name == "axes" else np.float32), name)
            for name, array in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model


MEAN = helper.make_node("ReduceMean", ["map", "axes"], ["pooled"], keepdims=0)
POOL = helper.make_node("GlobalAveragePool", ["map"], ["cells"])
FLAT = helper.make_node("Flatten", ["cells"], ["pooled"])
MATRIX = RNG.normal(size=(8, 4))
BIAS = RNG.normal(size=4)
KNOWN = {
    "Gemm": network(
        MEAN,
        helper.make_node("Gemm", ["pooled", "w", "b"], ["logits"]),
        axes=[2, 3],
        w=MATRIX,
        b=BIAS,
    ),
    "Gemm of the transposed": network(
        POOL, FLAT, helper.make_node("Gemm", ["pooled", "w", "b"], ["logits"], transB=1), w=MATRIX.T, b=BIAS
    ),
    "MatMul": network(MEAN, helper.make_node("MatMul", ["pooled", "w"], ["logits"]), axes=[-2, -1], w=MATRIX),
    "Add of a MatMul": network(
        POOL,
        FLAT,
        helper.make_node("MatMul", ["pooled", "w"], ["product"]),
        helper.make_node("Add", ["b", "product"], ["logits"]),
        w=MATRIX,
        b=BIAS,
    ),
}
OTHERS = {
    "a nonlinear step": network(
        POOL,
        FLAT,
        helper.make_node("Gemm", ["pooled", "w", "b"], ["sums"]),
        helper.make_node("Tanh", ["sums"], ["logits"]),
        w=MATRIX,
        b=BIAS,
    ),
    "a mean over the channels": network(
        helper.make_node("ReduceMean", ["map", "axes"], ["pooled"], keepdims=0),
        helper.make_node("Flatten", ["pooled"], ["row"]),
        helper.make_node("MatMul", ["row", "w"], ["logits"]),
        axes=[1, 2],
        w=RNG.normal(size=(4, 4)),
    ),
    "no mean": network(
        helper.make_node("Flatten", ["map"], ["row"]),
        helper.make_node("MatMul", ["row", "w"], ["logits"]),
        w=RNG.normal(size=(128, 4)),
    ),
    "a scaled matrix": network(
        POOL, FLAT, helper.make_node("Gemm", ["pooled", "w", "b"], ["logits"], alpha=2.0), w=MATRIX, b=BIAS
    ),
}


@pytest.mark.parametrize("model", KNOWN.values(), ids=KNOWN)
def test_the_network_computes_what_it_did_and_gives_its_features(model: onnx.ModelProto) -> None:
    images = RNG.random((2, 3, 8, 8), np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"image": images})
    found = explained(model)
    assert found is not None
    onnx.checker.check_model(found.model, full_check=True)
    logits, features = ReferenceEvaluator(found.model).run(None, {"image": images})
    np.testing.assert_array_equal(logits, expected)
    assert found.head.delta(features, logits) < tolerance(logits)
    assert [output.name for output in without_features(found.model).graph.output] == ["logits"]
    again = explained(found.model)
    assert again is not None
    assert again.model.graph.output[1].name == "features_"


@pytest.mark.parametrize("model", OTHERS.values(), ids=OTHERS)
def test_a_network_that_does_not_end_in_a_mean_and_a_matrix_is_not_explained(model: onnx.ModelProto) -> None:
    assert explained(model) is None


SPECS = [
    Preprocess(input_size=32, crop_pct=0.8, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    Preprocess(input_size=32, resize_to=48, resize="squash", interpolation="box", mean=(0.5,) * 3, std=(0.5,) * 3),
]


@pytest.mark.parametrize("spec", SPECS, ids=["short side", "squash"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_box_is_where_the_crop_lies_in_the_upright_photo(spec: Preprocess, orientation: int) -> None:
    across, down = np.meshgrid(np.linspace(0, 255, 301), np.linspace(0, 255, 207))
    photo, encoded = Image.fromarray(np.dstack([across, down, 0 * down]).astype(np.uint8)), BytesIO()
    exif = photo.getexif()
    exif[0x0112] = orientation
    photo.save(encoded, "PNG", exif=exif)
    upright = decode(encoded.getvalue())
    assert upright_size(open_image(encoded.getvalue())) == upright.size
    left, top, right, bottom = seen_box(upright.size, spec)
    seen = upright.resize((32, 32), Image.Resampling.BOX, (left, top, right, bottom))
    crop = resize_and_crop(upright, spec)
    assert np.abs(np.asarray(seen, float) - np.asarray(crop, float)).mean() < 1.5


def test_golden_images_still_pass_in_the_version_with_features(shipped: Bundle) -> None:
    tensors, expected = golden.load(shipped)
    model = onnx.load_model(shipped.path(shipped.artifact(["onnx"], "fp32")))
    logits, features = ReferenceEvaluator(model).run(None, {"image": tensors[:2]})
    np.testing.assert_allclose(logits, expected[:2], atol=1e-4)
    head = read_head(shipped, shipped.artifact(["onnx"], "fp32"))
    assert head is not None
    assert head.delta(features, logits) < 1e-4
